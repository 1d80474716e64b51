//! Server CPU per echoed message. Client and server share one core, so that none waits for the other's wake-up and both see the same caches: the cleanest ratio there is.

use benches::rig::{Failure, Job, Server, Subject, Wrapper};
use benches::rows::{Bar, Rows, median};

use crate::{Bench, figure};

/// A cell: its name, the message's bytes, the connections, and how much of bare epoll's CPU the reactor may use.
type Cell = (&'static str, &'static str, &'static str, f64);

const CELLS: [Cell; 4] = [
    ("64 B x 1", "64", "1", 1.00),
    ("64 B x 100", "64", "100", 0.96),
    ("64 B x 4000", "64", "4000", 0.95),
    ("16 KiB x 100", "16384", "100", 0.96),
];

/// What a median of 15 ratios may miss its bar by: two runs of the same program differ by so much.
const NOISE: f64 = 0.03;

impl Bench {
    pub(crate) fn cpu(&self, rows: &mut Rows) -> Result<(), Failure> {
        let chosen = |cell: &&Cell| self.cell.as_ref().is_none_or(|text| cell.0.contains(text.as_str()));
        CELLS.iter().filter(chosen).try_for_each(|cell| self.cpu_cell(rows, cell))
    }

    fn cpu_cell(&self, rows: &mut Rows, (name, size, connections, bar): &Cell) -> Result<(), Failure> {
        let mut values = vec![Vec::new(); self.subjects.len()];
        for round in 0..self.rounds {
            for (at, subject) in self.turns(round) {
                let used = self.cpu_run(subject, size, connections)?;
                if let Some(values) = values.get_mut(at) {
                    values.push(used);
                }
            }
        }
        for ((subject, peer), ours) in
            self.subjects.iter().zip(&values).skip(1).zip(values.first().into_iter().cycle())
        {
            let mut ratios: Vec<f64> = ours.iter().zip(peer).map(|(ours, peer)| ours / peer).collect();
            ratios.sort_by(f64::total_cmp);
            if let (Some(least), Some(middle), Some(most)) = (ratios.first(), median(&ratios), ratios.last())
            {
                let name = format!("cpu {name}: reactor / {}", subject.name());
                eprintln!("{name} {middle:.3} ({least:.3} to {most:.3})");
            }
        }
        let subjects: Vec<_> = self
            .subjects
            .iter()
            .zip(&values)
            .map(|(subject, values)| (subject.name(), values.as_slice()))
            .collect();
        let bars = [("epoll", Bar::AtMostAbout(*bar, NOISE)), ("tokio", Bar::Below(1.0))];
        rows.add_compared((name, "server CPU per message", "ns"), &subjects, &bars);
        Ok(())
    }

    fn cpu_run(&self, subject: Subject, size: &str, connections: &str) -> Result<f64, Failure> {
        let command = self.workshop.command(subject, Job::Echo, 1);
        let server = Server::start(Wrapper::None, "0", &command)?;
        let seconds = self.seconds.to_string();
        let load = ["--size", size, "--connections", connections, "--seconds", &seconds, "--warmup", "0.2"];
        figure(&self.workshop.load("0", &server, &load)?, "/server_cpu_ns_per_message")
    }
}
