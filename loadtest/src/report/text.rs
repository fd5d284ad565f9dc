//! The report as a table.

use std::fmt::{Display, Formatter, Result};

use super::{Capacity, Report, Step, Used};
use crate::tally::Percentiles;

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self { scenario, connections, rooms, workers, seconds, total, .. } = self;
        writeln!(
            f,
            "\n{scenario}: {connections} connections in {rooms} rooms, {seconds:.0} s measured, {workers} workers"
        )?;
        if let Some(why) = &self.over {
            writeln!(f, "  ENDED EARLY   {why}; this is what was seen until then")?;
        }
        if self.absent > 0 {
            writeln!(f, "  WRONG         {} clients were not connected at the end", self.absent)?;
        }
        self.checked(f)?;
        if total.disconnected + total.connect_failed + total.unsubscribed + total.limited > 0 {
            writeln!(
                f,
                "  connections   {} lost, {} tries failed, {} unsubscribed, {} resumes read on in the history",
                total.disconnected, total.connect_failed, total.unsubscribed, total.limited
            )?;
        }
        if total.signals > 0 {
            writeln!(f, "  signals       {:>10}   sent; {} events came", total.signals, total.events)?;
        }
        self.delays(f)?;
        self.server(f)?;
        self.steps(f)?;
        for (name, value) in &self.figures {
            writeln!(f, "  {name:<40} {value:>12.2}")?;
        }
        for objective in &self.objectives {
            let verdict = if objective.is_met() { "met" } else { "MISSED" };
            let found = objective.found.map_or("not known".to_owned(), |found| format!("{found:.2}"));
            writeln!(
                f,
                "  objective     {} at most {}: {found}, {verdict}",
                objective.name, objective.at_most
            )?;
        }
        for trouble in self.troubles.iter().take(10) {
            writeln!(f, "  trouble       {trouble}")?;
        }
        Ok(())
    }
}

impl Report {
    /// What was sent, what came of it, and whether that was right.
    fn checked(&self, f: &mut Formatter<'_>) -> Result {
        let Self { total, measured, .. } = self;
        if total.publishes > 0 {
            let (refused, unknown) = (total.refused(), total.unknown());
            writeln!(
                f,
                "  published     {:>10}   accepted {}, refused {refused}, unknown {unknown}; {} while measured",
                total.publishes, total.accepted, measured.publishes
            )?;
            for (code, count) in &total.refused {
                writeln!(f, "    refused     {count:>10}   {code}")?;
            }
            writeln!(
                f,
                "  delivered     {:>10}   of {} due; {} while measured",
                total.delivered, total.due, measured.delivered
            )?;
            let (lost, repeated, reordered, wrong) =
                (total.lost(), total.repeated, total.reordered, total.misdelivered);
            let verdict =
                if total.is_clean() { "every delivery once, in order, to its members" } else { "WRONG" };
            writeln!(
                f,
                "  checked       {verdict}: lost {lost}, repeated {repeated}, reordered {reordered}, to others {wrong}"
            )?;
            if total.damaged > 0 {
                writeln!(f, "    damaged     {:>10}   came otherwise than they were sent", total.damaged)?;
            }
            if total.unrecoverable > 0 {
                writeln!(
                    f,
                    "  not recovered {:>10}   missed while away, in {} returns to rooms of which the server keeps nothing",
                    total.not_recovered, total.unrecoverable
                )?;
            }
            if total.resent > 0 {
                writeln!(f, "  sent again    {:>10}   by recoveries, as the protocol allows", total.resent)?;
            }
        }
        Ok(())
    }

    fn delays(&self, f: &mut Formatter<'_>) -> Result {
        if let Some(why) = &self.limited {
            writeln!(f, "  DELAYS AND RATES ARE NOT TOLD: {why}")?;
        }
        if let Some(rate) = self.deliveries_per_second {
            writeln!(f, "  deliveries/s  {rate:>10.0}")?;
        }
        let delays = [
            ("delivery ms", self.delivery),
            ("accepted ms", self.accept),
            ("resume ms", self.resume),
            ("sent late ms", self.late),
        ];
        if delays.iter().any(|(_, delay)| delay.is_some()) {
            writeln!(f, "                       p50       p90       p99     p99.9       max")?;
        }
        for (name, delay) in delays {
            if let Some(Percentiles { p50, p90, p99, p999, max, .. }) = delay {
                writeln!(f, "  {name:<13} {p50:>10.2}{p90:>10.2}{p99:>10.2}{p999:>10.2}{max:>10.2}")?;
            }
        }
        Ok(())
    }

    fn server(&self, f: &mut Formatter<'_>) -> Result {
        if !self.server.is_empty() {
            writeln!(f, "  server                cores  µs/delivery  µs/publish   RSS MiB  KiB/connection")?;
        }
        for Used { id, name, cores, cpu_us_per_delivery, cpu_us_per_publish, rss_mib, kib_per_connection } in
            &self.server
        {
            let name = if name == id { name.clone() } else { format!("{name} {id}") };
            let show = |value: &Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.2}"));
            writeln!(
                f,
                "    {name:<20}{cores:>5.2}{:>13}{:>12}{rss_mib:>10.1}{:>16}",
                show(cpu_us_per_delivery),
                show(cpu_us_per_publish),
                show(kib_per_connection)
            )?;
        }
        writeln!(f, "  tester        {:>10.2} cores", self.tester_cores)
    }

    fn steps(&self, f: &mut Formatter<'_>) -> Result {
        if !self.steps.is_empty() {
            writeln!(f, "  publishes/s  deliveries/s    p50 ms    p99 ms   lost  failed  lag s  cores")?;
        }
        for step in &self.steps {
            let Step {
                publishes_per_second,
                deliveries_per_second,
                delay,
                lost,
                failed,
                lag_seconds,
                cores,
                broken,
            } = step;
            let lag = lag_seconds.map_or("–".to_owned(), |lag| format!("{lag:.2}"));
            let cores: Vec<String> = cores.iter().map(|cores| format!("{cores:.2}")).collect();
            writeln!(
                f,
                "{publishes_per_second:>13.0}{deliveries_per_second:>14.0}{:>10.2}{:>10.2}{lost:>7}{failed:>8}{lag:>7}  {}  {}",
                delay.p50,
                delay.p99,
                cores.join(" + "),
                broken.as_deref().unwrap_or("holds")
            )?;
        }
        if let Some(found) = &self.capacity {
            let Capacity { publishes_per_second, deliveries_per_second, limit, resource, is_servers } = found;
            let what = if *is_servers { "CAPACITY     " } else { "NO CAPACITY  " };
            writeln!(
                f,
                "  {what} {publishes_per_second:.0} publishes/s, {deliveries_per_second:.0} deliveries/s held; then {limit}"
            )?;
            let is_what = if *is_servers { "set by" } else { "not the server's limit:" };
            writeln!(f, "                {is_what} {resource}")?;
        }
        Ok(())
    }
}
