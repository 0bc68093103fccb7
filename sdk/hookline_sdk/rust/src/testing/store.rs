//! Keys with values and limits of time, as the host keeps them.

use std::collections::BTreeMap;

const MAX_BYTES: usize = 65_536;
const MAX_KEYS: usize = 1024;

struct Entry {
    value: Vec<u8>,
    /// When it goes.
    until: Option<i64>,
}

#[derive(Default)]
pub(crate) struct Store(BTreeMap<Vec<u8>, Entry>);

impl Store {
    fn drop_old(&mut self, now: i64) {
        self.0.retain(|_, entry| entry.until.map_or(true, |until| now < until));
    }

    pub(crate) fn get(&mut self, key: &[u8], now: i64) -> Option<Vec<u8>> {
        self.drop_old(now);
        self.0.get(key).map(|entry| entry.value.clone())
    }

    pub(crate) fn put(&mut self, key: &[u8], value: &[u8], until: Option<i64>) {
        self.0.insert(key.to_vec(), Entry { value: value.to_vec(), until });
    }

    /// 0, or a code: -2 too large, -5 too many keys.
    pub(crate) fn set(&mut self, key: &[u8], value: &[u8], until: Option<i64>, now: i64) -> i32 {
        self.drop_old(now);
        if key.len() > MAX_BYTES || value.len() > MAX_BYTES {
            return -2;
        }
        if self.0.len() >= MAX_KEYS && !self.0.contains_key(key) {
            return -5;
        }
        self.put(key, value, until);
        0
    }

    pub(crate) fn delete(&mut self, key: &[u8], now: i64) -> bool {
        self.drop_old(now);
        self.0.remove(key).is_some()
    }

    pub(crate) fn limit(&mut self, key: &[u8], until: Option<i64>, now: i64) -> bool {
        self.drop_old(now);
        self.0.get_mut(key).map(|entry| entry.until = until).is_some()
    }

    pub(crate) fn until(&self, key: &[u8]) -> Option<i64> {
        self.0.get(key).and_then(|entry| entry.until)
    }

    pub(crate) fn names(&mut self, prefix: &[u8], now: i64) -> Vec<String> {
        self.drop_old(now);
        let names = self.0.keys().filter(|key| key.starts_with(prefix));
        names.filter_map(|key| String::from_utf8(key.clone()).ok()).collect()
    }
}
