//! What ZooKeeper may do without anybody noticing, how soon entries are back, and what a change costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use benches::rows::{Bar, Rows};
use reactor::{EventLoopThreadPool, LoopConfig};
use rpc::registry::{Instance, Registry as _, Standing, ZooKeeperConfig, ZooKeeperRegistry};
use rpc::{Channel, ChannelConfig};
use testkit::{FaultProxy, ZooKeeper};

use crate::faults::{Load, wait_until};
use crate::load::float;
use crate::ours::Provider;
use crate::subject::Failure;

const SERVICE: &str = "rpc.test.Echo";
const LONG: Duration = Duration::from_secs(60);
/// Instances that each consumer knows.
const INSTANCES: u16 = 500;

fn config(address: std::net::SocketAddr) -> Result<ZooKeeperConfig, Failure> {
    Ok(ZooKeeperConfig::new(&address.to_string())?)
}

/// Calls go on while ZooKeeper is gone for a while, and comes back knowing nothing.
pub(crate) fn away(seconds: f64, rows: &mut Rows) -> Result<(), Failure> {
    let zookeeper = ZooKeeper::start()?;
    let registry = ZooKeeperRegistry::start(config(zookeeper.addr())?)?;
    let mut providers = Vec::new();
    for number in 0..3 {
        let provider = Provider::start("127.0.0.1:0")?;
        let instance = Instance::new(format!("provider-{number}"), provider.server.local_addr());
        let entry = registry.register(SERVICE, instance);
        entry.wait_entered(LONG)?;
        providers.push((provider, entry));
    }
    let consumer = ZooKeeperRegistry::start(config(zookeeper.addr())?)?;
    let pool = EventLoopThreadPool::start(1, LoopConfig::default())?;
    let channel = Channel::of_service(pool.handles(), &consumer, SERVICE, ChannelConfig::default())?;
    wait_until("three connections", || channel.stats().ready == 3)?;
    let load = Load::start(&channel);
    load.more(1000)?;
    zookeeper.kill9();
    std::thread::sleep(Duration::from_secs_f64(seconds));
    zookeeper.restart_empty()?;
    wait_until("all entries", || consumer.instances(SERVICE).is_ok_and(|all| all.len() == 3))?;
    load.more(1000)?;
    let (good, failed) = load.stop()?;
    let case = format!("ZooKeeper away for {seconds:.0} s, then empty");
    rows.add(&case, "rpc", "failed calls", "", &[float(failed)], Some(Bar::AtMost(0.0)));
    rows.add(&case, "rpc", "calls", "", &[float(good)], None);
    Ok(())
}

/// From ZooKeeper's return, after the session has ended there, to the entry's.
pub(crate) fn expiry(rounds: usize, rows: &mut Rows) -> Result<(), Failure> {
    let zookeeper = ZooKeeper::start()?;
    let proxy = FaultProxy::start(zookeeper.addr());
    let provider = ZooKeeperRegistry::start(config(proxy.addr())?)?;
    let entry = provider.register(SERVICE, Instance::new("one", "127.0.0.1:7000".parse()?));
    entry.wait_entered(LONG)?;
    let look = ZooKeeperRegistry::start(config(zookeeper.addr())?)?;
    let (mut cut_off, mut restarted) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        proxy.go_silent(true);
        wait_until("the session's end", || look.instances(SERVICE).is_ok_and(|all| all.is_empty()))?;
        proxy.go_silent(false);
        let back = Instant::now();
        wait_until("the entry", || look.instances(SERVICE).is_ok_and(|all| all.len() == 1))?;
        cut_off.push(back.elapsed().as_secs_f64());
        zookeeper.kill9();
        wait_until("the loss", || entry.standing() == Standing::Pending)?;
        zookeeper.restart_empty()?;
        let back = Instant::now();
        wait_until("the entry", || look.instances(SERVICE).is_ok_and(|all| all.len() == 1))?;
        restarted.push(back.elapsed().as_secs_f64());
    }
    for (case, values) in [("session ended while cut off", cut_off), ("ZooKeeper restarted empty", restarted)]
    {
        let most = values.iter().copied().fold(0.0, f64::max);
        rows.add(case, "rpc", "until the entry is back, the most", "s", &[most], Some(Bar::AtMost(3.0)));
        rows.add(case, "rpc", "until the entry is back", "s", &values, None);
    }
    Ok(())
}

/// Many consumers, each with many instances, one of which is new.
pub(crate) fn consumers(count: usize, rows: &mut Rows) -> Result<(), Failure> {
    let zookeeper = ZooKeeper::start_with_heap("2g")?;
    let mut patient = config(zookeeper.addr())?;
    // The server has much to do at first, and a session that is lost would be counted.
    patient.session_timeout = LONG;
    let provider = ZooKeeperRegistry::start(patient.clone())?;
    let mut entries = Vec::new();
    for port in 1..=INSTANCES {
        entries.push(provider.register(SERVICE, Instance::new("x", ([127, 0, 0, 1], port).into())));
    }
    for entry in &entries {
        entry.wait_entered(LONG * 2)?;
    }
    let told = Arc::new(AtomicUsize::new(0));
    let mut consumers = Vec::new();
    for number in 0..count {
        let consumer = ZooKeeperRegistry::start(patient.clone())?;
        let (theirs, known) = (Arc::clone(&told), AtomicUsize::new(0));
        let observer = move |all: &[Instance]| {
            if all.len() >= usize::from(INSTANCES) && known.swap(all.len(), Ordering::SeqCst) != all.len() {
                theirs.fetch_add(1, Ordering::SeqCst);
            }
        };
        let watching = consumer.watch(SERVICE, Box::new(observer));
        consumers.push((consumer, watching));
        // One after the other in tens, for the first fetch is not what is measured.
        if number % 10 == 9 {
            wait_until("all instances", || told.load(Ordering::SeqCst) > number)?;
        }
    }
    wait_until("all consumers", || told.load(Ordering::SeqCst) == count)?;
    let before: Vec<(u64, u64)> = consumers.iter().map(|(consumer, _)| consumer.fetched()).collect();
    let began = Instant::now();
    let _new = provider.register(SERVICE, Instance::new("new", ([127, 0, 0, 1], INSTANCES + 1).into()));
    wait_until("all to know of it", || told.load(Ordering::SeqCst) == 2 * count)?;
    let took = began.elapsed().as_secs_f64();
    let cost = consumers.iter().zip(&before).map(|((consumer, _), before)| {
        let after = consumer.fetched();
        (after.0 - before.0, after.1 - before.1)
    });
    let (lists, fetches) =
        cost.fold((0, 0), |most: (u64, u64), cost| (most.0.max(cost.0), most.1.max(cost.1)));
    let case = format!("{count} consumers x {INSTANCES} instances, one new");
    rows.add(&case, "rpc", "lists of a consumer, the most", "", &[float(lists)], Some(Bar::AtMost(1.0)));
    rows.add(&case, "rpc", "fetches of a consumer, the most", "", &[float(fetches)], Some(Bar::AtMost(1.0)));
    rows.add(&case, "rpc", "until all know", "s", &[took], None);
    Ok(())
}
