//! One entry of ours in ZooKeeper: made, kept, taken over, given up.

use std::sync::Arc;

use zookeeper::{Acl, CreateMode, ZkError};

use super::super::{Entry, Instance, InstanceState, RegistryError, Standing, Wish};
use super::paths;
use super::session::{Failure, Session};

/// An entry that is to be there.
pub(super) struct Provider {
    pub(super) number: u64,
    service: String,
    instance: Instance,
    entry: Arc<Entry>,
    /// The node of this session, by the number of the change that made it.
    made: Option<i64>,
    /// Whether it was there at any time, so that another one in its place came later.
    was_there: bool,
    leaves: bool,
}

impl Provider {
    pub(super) const fn new(number: u64, service: String, instance: Instance, entry: Arc<Entry>) -> Self {
        Self { number, service, instance, entry, made: None, was_there: false, leaves: false }
    }

    /// A new session knows nothing of the node of the last.
    pub(super) fn forget_session(&mut self) {
        self.made = None;
        if matches!(self.entry.get(), Standing::Entered(_)) {
            self.entry.set(Standing::Pending);
        }
    }

    pub(super) fn wish(&mut self, wish: Wish) {
        match wish {
            Wish::Drain => {
                self.instance.state = InstanceState::Draining;
                // Said again as soon as it is so there.
                if matches!(self.entry.get(), Standing::Entered(_)) {
                    self.entry.set(Standing::Pending);
                }
            }
            Wish::Leave => self.leaves = true,
        }
    }

    /// Without a session there is nothing to take out: the node ends with the session it was made in.
    pub(super) fn leave_without_session(&self) -> bool {
        if self.leaves {
            self.entry.set(Standing::Gone);
        }
        self.leaves
    }

    /// Brings the node into the state that it is to have. `true` when the entry has left for good.
    pub(super) fn settle(&mut self, session: &mut Session, root: &str) -> Result<bool, Failure> {
        let path = format!("{}/{}", paths::service(root, &self.service), paths::node(&self.instance));
        if self.leaves {
            if self.made.take().is_some() {
                delete(session, path, None)?;
            }
            self.entry.set(Standing::Gone);
            return Ok(true);
        }
        match self.enter(session, root, &path) {
            Ok(()) => self.entry.set(Standing::Entered(self.instance.state)),
            Err(Trouble::Lost) => return Err(Failure::Lost),
            Err(Trouble::Refused(error)) => {
                if self.entry.get() != Standing::Refused(error.clone()) {
                    log::warn!("{} is not registered: {error}", paths::node(&self.instance));
                }
                self.entry.set(Standing::Refused(error));
            }
        }
        Ok(false)
    }

    fn enter(&mut self, session: &mut Session, root: &str, path: &str) -> Result<(), Trouble> {
        let data = serde_json::to_vec(&self.instance).map_err(|error| refused(&error))?;
        let known = {
            let path = path.to_owned();
            found(session.call(move |client| client.get_data(&path, false)))?
        };
        match (known, self.made) {
            (Some((there, stat)), Some(made)) if stat.czxid == made => {
                if there != data {
                    self.write(session, path, data, stat.version)?;
                }
                return Ok(());
            }
            (Some((there, stat)), _) => self.take_over(session, path, &there, stat.version)?,
            // It was never there, or somebody took it out.
            (None, _) => {}
        }
        self.made = None;
        self.look_for_others(session, root)?;
        let made = {
            let path = path.to_owned();
            session.call(move |client| {
                client.create(&path, data, Acl::open_unsafe().clone(), CreateMode::Ephemeral)?;
                client.exists(&path, false)
            })
        };
        match made {
            Ok(Some(stat)) => {
                self.made = Some(stat.czxid);
                self.was_there = true;
                Ok(())
            }
            // Somebody was quicker, or it was taken out at once. The next round sees who.
            Ok(None) | Err(Failure::Refused(ZkError::NodeExists)) => {
                Err(Trouble::Refused(RegistryError::Refused("somebody else is at this entry".to_owned())))
            }
            Err(failure) => Err(failure.into()),
        }
    }

    /// Takes out a node of this name that is not of this session: left by an earlier session or an earlier life of this program. One that came after this program
    /// had registered is another program's.
    fn take_over(
        &self,
        session: &mut Session,
        path: &str,
        there: &[u8],
        version: i32,
    ) -> Result<(), Trouble> {
        let run = serde_json::from_slice::<Instance>(there).map(|other| other.run).unwrap_or(0);
        if self.was_there && run != self.instance.run {
            return Err(Trouble::Refused(RegistryError::Replaced { id: self.instance.id.clone() }));
        }
        log::info!("taking over the entry {path} of an earlier session");
        Ok(delete(session, path.to_owned(), Some(version))?)
    }

    /// Nobody else may be registered at this address.
    fn look_for_others(&self, session: &mut Session, root: &str) -> Result<(), Trouble> {
        let folder = paths::service(root, &self.service);
        make_folder(session, &folder)?;
        let nodes = session.call(move |client| client.get_children(&folder, false))?;
        let own = paths::node(&self.instance);
        let other = nodes.iter().find(|node| paths::is_at(node, &self.instance) && **node != own);
        other.map_or(Ok(()), |node| {
            let address = self.instance.address;
            let id = node.get(address.to_string().len() + 1..).unwrap_or_default().to_owned();
            Err(Trouble::Refused(RegistryError::Foreign { address, id }))
        })
    }

    fn write(&self, session: &mut Session, path: &str, data: Vec<u8>, version: i32) -> Result<(), Trouble> {
        let path = path.to_owned();
        session.call(move |client| client.set_data(&path, data, Some(version)))?;
        Ok(())
    }
}

/// Why an entry is not there.
enum Trouble {
    Lost,
    Refused(RegistryError),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Lost => Self::Lost,
            Failure::Refused(error) => Self::Refused(RegistryError::Refused(format!("{error:?}"))),
        }
    }
}

fn refused(error: &serde_json::Error) -> Trouble {
    Trouble::Refused(RegistryError::Refused(error.to_string()))
}

/// What is not there is no failure.
pub(super) fn found<T>(result: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Failure::Refused(ZkError::NoNode)) => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn delete(session: &mut Session, path: String, version: Option<i32>) -> Result<(), Failure> {
    found(session.call(move |client| client.delete(&path, version))).map(|_| ())
}

/// Makes a folder and all above it.
pub(super) fn make_folder(session: &mut Session, path: &str) -> Result<(), Failure> {
    let there = path.to_owned();
    if session.call(move |client| client.exists(&there, false))?.is_some() {
        return Ok(());
    }
    for folder in paths::ancestors(path) {
        let made = session.call(move |client| {
            client.create(&folder, Vec::new(), Acl::open_unsafe().clone(), CreateMode::Persistent)
        });
        match made {
            Ok(_) | Err(Failure::Refused(ZkError::NodeExists)) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(())
}
