//! How many connections a listener holds, and how long one may stay without a use. Set in `config`, kept
//! by `server`.

use std::time::Duration;

/// The limits of one listener.
#[derive(Clone, Copy, Debug)]
pub struct ListenerLimits {
    /// Connections at once.
    pub connections: usize,
    /// Of these, connections on which no known caller has called yet.
    pub unknown: usize,
    /// Of these, from one network: an IPv4 address, or the first 64 bits of an IPv6 address.
    pub unknown_per_network: usize,
    /// Time for the TLS handshake and for HTTP/2's preface together.
    pub handshake: Duration,
    /// How long a connection on which no known caller has called may be without a call.
    pub unknown_idle: Duration,
    /// A known caller's connection that has been without a call for this long is closed when a new one
    /// finds no room.
    pub known_idle: Duration,
    /// Time for the message of a call without credentials.
    pub stranger_message: Duration,
    /// Time for the message of a known caller's call.
    pub caller_message: Duration,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            connections: 4096,
            unknown: 1024,
            unknown_per_network: 128,
            handshake: Duration::from_secs(5),
            unknown_idle: Duration::from_secs(60),
            known_idle: Duration::from_secs(60),
            stranger_message: Duration::from_secs(2),
            caller_message: Duration::from_secs(5),
        }
    }
}
