//! Where servers are found: in ZooKeeper, or in a list on the command line.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rpc::registry::{Instance, InstanceState, Registry as _, ZooKeeperConfig, ZooKeeperRegistry};

use crate::call::Caller;
use crate::failure::{Failure, usage};
use crate::options::Options;
use crate::target::resolve;

pub(crate) enum Directory {
    ZooKeeper(Box<ZooKeeperRegistry>),
    /// The servers, and how long each may take to tell what it offers.
    Fixed(Vec<SocketAddr>, Duration),
}

impl Directory {
    pub(crate) fn open(options: &Options, timeout: Duration) -> Result<Self, Failure> {
        if !options.endpoints.is_empty() {
            let addresses = options.endpoints.iter().map(|text| resolve(text)).collect::<Result<_, _>>()?;
            return Ok(Self::Fixed(addresses, timeout));
        }
        let Some(servers) = &options.zookeeper else {
            return usage(
                "where are the servers? --zookeeper HOST:PORT finds them, --endpoints HOST:PORT names them",
            );
        };
        let config = ZooKeeperConfig::new(servers).map_err(|error| Failure::Usage(error.to_string()))?;
        let registry = ZooKeeperRegistry::start(config)?;
        // Whoever asks before the first session is told that nobody can be reached.
        let until = Instant::now() + timeout;
        while registry.sessions() == 0 {
            if Instant::now() > until {
                return Err(format!("ZooKeeper at {servers} does not answer").into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Self::ZooKeeper(Box::new(registry)))
    }

    /// All services with their instances.
    fn services(&self) -> Result<BTreeMap<String, usize>, Failure> {
        let mut services = BTreeMap::new();
        match self {
            Self::ZooKeeper(registry) => {
                for service in registry.services()? {
                    let instances = registry.instances(&service)?.len();
                    services.insert(service, instances);
                }
            }
            Self::Fixed(addresses, timeout) => {
                for address in addresses {
                    for service in Caller::connect(&[*address], *timeout)?.offers("")?.services {
                        *services.entry(service.name).or_default() += 1;
                    }
                }
            }
        }
        Ok(services)
    }

    fn instances(&self, service: &str) -> Result<Vec<Instance>, Failure> {
        match self {
            Self::ZooKeeper(registry) => Ok(registry.instances(service)?),
            Self::Fixed(addresses, timeout) => {
                let mut instances = Vec::new();
                for address in addresses {
                    if !Caller::connect(&[*address], *timeout)?.offers(service)?.services.is_empty() {
                        instances.push(Instance::new("-", *address));
                    }
                }
                Ok(instances)
            }
        }
    }

    /// Whom to call for a service: the instances that take calls, or the servers on the command line, which are not asked first.
    pub(crate) fn callable(&self, service: &str) -> Result<Vec<SocketAddr>, Failure> {
        if let Self::Fixed(addresses, _) = self {
            return Ok(addresses.clone());
        }
        let all = self.instances(service)?;
        let up: Vec<_> = all.iter().filter(|instance| instance.state == InstanceState::Up).collect();
        match (all.len(), up.len()) {
            (0, _) => Err(format!("nobody provides {service}").into()),
            (leaving, 0) => Err(format!("no instance of {service} is up: all {leaving} are draining").into()),
            _ => Ok(up.iter().map(|instance| instance.address).collect()),
        }
    }
}

pub(crate) fn print_services(directory: &Directory) -> Result<(), Failure> {
    for (service, instances) in directory.services()? {
        println!("{service}\t{instances}");
    }
    Ok(())
}

pub(crate) fn print_instances(directory: &Directory, service: &str) -> Result<(), Failure> {
    let instances = directory.instances(service)?;
    if instances.is_empty() {
        return Err(format!("nobody provides {service}").into());
    }
    for Instance { address, id, state, weight, zone, version, .. } in &instances {
        let state = match state {
            InstanceState::Up => "up",
            InstanceState::Draining => "draining",
        };
        let or = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        println!("{address}\t{id}\t{state}\t{weight}\t{}\t{}", or(zone), or(version));
    }
    Ok(())
}
