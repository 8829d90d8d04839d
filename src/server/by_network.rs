//! What strangers hold, by the network that it is for: so that the network with the most gives way first.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// Values by network and age.
pub(super) struct ByNetwork<T> {
    next_id: u64,
    count: usize,
    networks: HashMap<IpAddr, BTreeMap<u64, T>>,
}

impl<T> Default for ByNetwork<T> {
    fn default() -> Self {
        Self { next_id: 0, count: 0, networks: HashMap::new() }
    }
}

impl<T> ByNetwork<T> {
    /// Adds a value. Gives its id, which is unique and grows.
    pub(super) fn insert(&mut self, network: IpAddr, value: T) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.count += 1;
        self.networks.entry(network).or_default().insert(id, value);
        id
    }

    pub(super) fn remove(&mut self, network: IpAddr, id: u64) -> Option<T> {
        let values = self.networks.get_mut(&network)?;
        let value = values.remove(&id)?;
        self.count -= 1;
        if values.is_empty() {
            self.networks.remove(&network);
        }
        Some(value)
    }

    /// Removes the oldest value of a network.
    pub(super) fn remove_oldest(&mut self, network: IpAddr) -> Option<(u64, T)> {
        let id = *self.networks.get(&network)?.keys().next()?;
        Some((id, self.remove(network, id)?))
    }

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// How many values this network has.
    pub(super) fn len_of(&self, network: IpAddr) -> usize {
        self.networks.get(&network).map_or(0, BTreeMap::len)
    }

    /// The network with the most values; `None` if no network has any.
    pub(super) fn largest(&self) -> Option<IpAddr> {
        let networks = self.networks.iter();
        networks.max_by_key(|(_, values)| values.len()).map(|(network, _)| *network)
    }
}
