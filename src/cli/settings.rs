//! `peerpanda-sso settings`: every setting of `serve`, for people and for tools that must know them all.

use clap::Args;
use serde_json::json;

use super::{Failure, Outcome, Output, print_json, print_line};
use crate::config::Setting;

/// The command's options.
#[derive(Args)]
pub struct ListSettings {
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl ListSettings {
    /// Prints the settings.
    ///
    /// # Errors
    /// Standard output can't be written to.
    pub fn run(&self) -> Result<Outcome, Failure> {
        let settings = Setting::all();
        match self.output {
            Output::Json => {
                let one = |setting: &Setting| json!({ "variable": setting.variable, "flag": setting.flag, "default": setting.default, "help": setting.help });
                print_json(&json!(settings.iter().map(one).collect::<Vec<_>>()))?;
            }
            Output::Text => {
                for Setting { variable, flag, default, help } in &settings {
                    let default = default
                        .as_deref()
                        .map_or_else(String::new, |default| format!(" (default: {default})"));
                    print_line(&format!("{variable}, {flag}{default}\n    {help}"))?;
                }
            }
        }
        Ok(Outcome::Success)
    }
}
