//! Slots with generations: where a service keeps its connections, so that an old name never reaches a new tenant.

/// Slots of one service: 2^24 less the one that stands for the listener.
pub(crate) const SLOTS_MAX: u32 = 0x00ff_ffff;

/// Slots of one page. Pages never move, so a growing service copies nothing and wastes less than a page.
const PAGE: usize = 256;

/// A slot and the generation of its tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

struct Slot<T> {
    generation: u32,
    tenant: Option<T>,
}

/// A page is always whole, so that a slot's place in it needs no check.
type Page<T> = Box<[Slot<T>; PAGE]>;

pub(crate) struct Slab<T> {
    pages: Vec<Page<T>>,
    free: Vec<u32>,
    /// Slots that were given out at least once; those behind them are new.
    used: u32,
    len: usize,
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self { pages: Vec::new(), free: Vec::new(), used: 0, len: 0 }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    #[inline]
    fn slot(&self, slot: u32) -> Option<&Slot<T>> {
        let page = self.pages.get(slot as usize / PAGE)?;
        page.get(slot as usize % PAGE)
    }

    #[inline]
    fn slot_mut(&mut self, slot: u32) -> Option<&mut Slot<T>> {
        let page = self.pages.get_mut(slot as usize / PAGE)?;
        page.get_mut(slot as usize % PAGE)
    }

    /// Gives `tenant` a slot, or gives it back when all slots are taken.
    pub(crate) fn insert(&mut self, tenant: T) -> Result<Key, T> {
        let number = match self.free.pop() {
            Some(number) => number,
            None if self.used == SLOTS_MAX => return Err(tenant),
            None => self.new_slot(),
        };
        let Some(slot) = self.slot_mut(number) else { return Err(tenant) };
        slot.tenant = Some(tenant);
        let generation = slot.generation;
        self.len += 1;
        Ok(Key { slot: number, generation })
    }

    /// The next slot that nobody had, on a new page if need be.
    fn new_slot(&mut self) -> u32 {
        let number = self.used;
        if number as usize / PAGE == self.pages.len() {
            self.pages.push(Box::new(std::array::from_fn(|_| Slot { generation: 1, tenant: None })));
        }
        self.used += 1;
        number
    }

    #[inline]
    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        let slot = self.slot(key.slot)?;
        if slot.generation == key.generation { slot.tenant.as_ref() } else { None }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slot_mut(key.slot)?;
        if slot.generation == key.generation { slot.tenant.as_mut() } else { None }
    }

    /// Takes the tenant out. From here on its name is stale.
    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slot_mut(key.slot)?;
        if slot.generation != key.generation {
            return None;
        }
        let tenant = slot.tenant.take()?;
        // A slot that ran through all its generations is retired, so that a name is never given out twice.
        if let Some(next) = slot.generation.checked_add(1) {
            slot.generation = next;
            self.free.push(key.slot);
        }
        self.len -= 1;
        Some(tenant)
    }

    /// The keys of all tenants, for work that touches everybody (stopping).
    pub(crate) fn keys(&self) -> Vec<Key> {
        let mut keys = Vec::with_capacity(self.len);
        let mut number: u32 = 0;
        for page in &self.pages {
            for slot in page.iter() {
                if slot.tenant.is_some() {
                    keys.push(Key { slot: number, generation: slot.generation });
                }
                number += 1;
            }
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn old_names_do_not_reach_new_tenants() {
        let mut slab = Slab::new();
        let old = slab.insert("old").unwrap();
        assert_eq!(slab.remove(old), Some("old"));
        let new = slab.insert("new").unwrap();
        assert_eq!(old.slot, new.slot);
        assert_eq!(slab.get(old), None);
        assert_eq!(slab.remove(old), None);
        assert_eq!(slab.get(new), Some(&"new"));
    }

    proptest! {
        #[test]
        fn slots_behave_like_a_map(steps in proptest::collection::vec((0_u8..3, 0_usize..64), 1..600)) {
            let mut slab = Slab::new();
            let mut model: HashMap<Key, usize> = HashMap::new();
            let mut names: Vec<Key> = Vec::new();
            for (at, (what, pick)) in steps.into_iter().enumerate() {
                if what < 2 {
                    let key = slab.insert(at).unwrap();
                    prop_assert!(model.insert(key, at).is_none(), "a name was given out twice");
                    names.push(key);
                } else if !names.is_empty() {
                    let key = names[pick % names.len()];
                    prop_assert_eq!(slab.remove(key), model.remove(&key));
                }
                prop_assert_eq!(slab.len(), model.len());
            }
            for key in &names {
                prop_assert_eq!(slab.get(*key), model.get(key));
            }
            let mut keys = slab.keys();
            keys.sort();
            let mut expected: Vec<_> = model.keys().copied().collect();
            expected.sort();
            prop_assert_eq!(keys, expected);
        }
    }
}
