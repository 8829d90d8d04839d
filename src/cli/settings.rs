//! `peerpanda-sso settings`: lists every setting of `serve`. The reference in docs is tested
//! against this list.

use clap::Args;
use serde_json::json;

use super::{Failure, Outcome, Output, print_data, print_line};
use crate::config::Setting;

/// The command's options.
#[derive(Args)]
pub struct ListSettings {
    /// Set the output format.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

impl ListSettings {
    /// The format of the output and of errors.
    pub(super) fn output(&self) -> Output {
        self.output
    }

    /// Prints the settings.
    ///
    /// # Errors
    /// Standard output can't be written.
    pub fn run(&self) -> Result<Outcome, Failure> {
        let settings = Setting::all();
        match self.output {
            Output::Json | Output::Yaml => {
                let to_json = |setting: Setting| {
                    let Setting { variable, flag, default, help } = setting;
                    json!({ "variable": variable, "flag": flag, "default": default, "help": help })
                };
                let settings: Vec<_> = settings.into_iter().map(to_json).collect();
                print_data(self.output, &settings)?;
            }
            Output::Text | Output::Wide => {
                for Setting { variable, flag, default, help } in settings {
                    let default =
                        default.map_or_else(String::new, |text| format!(" (default: {text})"));
                    let flag = flag.map_or_else(String::new, |flag| format!(", {flag}"));
                    print_line(&format!("{variable}{flag}{default}\n    {help}"))?;
                }
            }
        }
        Ok(Outcome::Success)
    }
}
