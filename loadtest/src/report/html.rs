//! The report as one page that needs nothing else: charts as inline SVG.

use std::fmt::Write;

use super::Report;
use crate::{load::Second, tally::Percentiles};

/// Size of a chart, in pixels.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 220.0;
/// Room for the axes, in pixels.
const LEFT: f64 = 68.0;
const BOTTOM: f64 = 32.0;
const TOP: f64 = 12.0;
/// Points of a chart's line.
const POINTS_MAX: usize = 800;
/// Lines of a chart's scale.
const STEPS: u32 = 4;
/// Colours that people who see few of them can still tell apart.
const COLOURS: [&str; 6] = ["#0b6fb8", "#d55e00", "#009e73", "#b5478f", "#8a6d00", "#5b5b5b"];

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1360px;padding:0 1rem;color:#1c2430;background:#fff}\
h1{font-size:1.5rem;margin:0}h2{font-size:1rem;margin:0 0 .4rem}.sub{color:#5a6675;margin:.2rem 0 1.2rem}\
.tiles{display:flex;flex-wrap:wrap;gap:.8rem;margin:0 0 1.2rem}.tile{border:1px solid #d9dfe6;border-radius:8px;padding:.6rem 1rem;min-width:8.5rem}\
.tile b{display:block;font-size:1.35rem;font-variant-numeric:tabular-nums}.tile span{color:#5a6675;font-size:.85rem}\
.good{border-left:5px solid #009e73}.bad{border-left:5px solid #c0272d}\
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(420px,100%),1fr));gap:1rem}figure{margin:0;border:1px solid #d9dfe6;border-radius:8px;padding:.8rem}\
svg{width:100%;height:auto;display:block}svg text{font-size:12px;fill:#78828f}code{overflow-wrap:anywhere}\
@media(max-width:700px){body{margin:1rem auto}svg text{font-size:19px}.tile{flex:1 1 40%;min-width:0;padding:.5rem .7rem}}\
pre{background:#f5f7f9;border-radius:8px;padding:1rem;overflow:auto;font-size:13px}\
.key{display:flex;gap:1rem;flex-wrap:wrap;font-size:.85rem;color:#5a6675}.key i{display:inline-block;width:.8rem;height:.8rem;border-radius:2px;margin-right:.35rem;vertical-align:-1px}\
@media(prefers-color-scheme:dark){body{background:#12161c;color:#e3e8ee}.tile,figure{border-color:#303a46}pre{background:#1b222b}.sub,.tile span,.key{color:#9aa7b5}}";

/// The page.
pub fn page(report: &Report) -> String {
    let mut page = String::new();
    let verdict = if report.is_good() { "good" } else { "bad" };
    let Report { scenario, connections, rooms, seconds, command, machine, .. } = report;
    let series = &thinned(&report.series);
    let _ = write!(
        page,
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
         <title>loadtest {scenario}</title><style>{STYLE}</style><h1>{scenario}</h1>\
         <p class=sub>{connections} connections, {rooms} rooms, {seconds:.0} s measured. {} · {} cores · {} MiB · Linux {}<br><code>{}</code></p>",
        escape(&machine.processor),
        machine.cores,
        machine.memory_mib,
        escape(&machine.kernel),
        escape(command)
    );
    tiles(report, verdict, &mut page);
    page.push_str("<div class=charts>");
    let line =
        |name: &str, value: &dyn Fn(&Second) -> f64| (name.to_owned(), series.iter().map(value).collect());
    if report.limited.is_none() {
        chart(
            "Delay of deliveries, ms",
            series,
            &[
                line("p50", &|second| known(second.delay.p50, second)),
                line("p99", &|second| known(second.delay.p99, second)),
                line("max", &|second| known(second.delay.max, second)),
            ],
            &mut page,
        );
    }
    chart(
        "Messages in a second",
        series,
        &[
            line("deliveries", &per_second(series, |second| second.delivered)),
            line("publishes", &per_second(series, |second| second.publishes)),
        ],
        &mut page,
    );
    let by_process = |value: fn(&Second) -> &Vec<f64>| -> Vec<(String, Vec<f64>)> {
        let named = report.server.iter().enumerate();
        named
            .map(|(at, used)| {
                let values = series.iter().map(|second| value(second).get(at).copied().unwrap_or_default());
                (format!("{} {}", used.name, used.id), values.collect())
            })
            .collect()
    };
    chart("CPU of the server, cores", series, &by_process(|second| &second.cores), &mut page);
    chart("Memory of the server, MiB", series, &by_process(|second| &second.rss_mib), &mut page);
    chart("Connections", series, &[line("connected", &|second| count(second.connected))], &mut page);
    if series.iter().any(|second| second.lag_seconds.is_some()) {
        chart(
            "Persister behind, s",
            series,
            &[line("lag", &|second| second.lag_seconds.unwrap_or_default())],
            &mut page,
        );
    }
    let _ = write!(
        page,
        "</div><h2 style='margin-top:1.2rem'>Summary</h2><pre>{}</pre></html>",
        escape(report.to_string().trim())
    );
    page
}

fn tiles(report: &Report, verdict: &str, page: &mut String) {
    let total = &report.total;
    let wrong = total.lost() + total.repeated + total.reordered + total.misdelivered + total.damaged;
    page.push_str("<div class=tiles>");
    let mut tile = |class: &str, value: String, what: &str| {
        let _ = write!(page, "<div class='tile {class}'><b>{value}</b><span>{what}</span></div>");
    };
    page_open(&mut tile, report, verdict, wrong);
    for objective in &report.objectives {
        let class = if objective.is_met() { "good" } else { "bad" };
        let found = objective.found.map_or("not known".to_owned(), |found| format!("{found:.2}"));
        tile(class, found, &format!("{}, at most {}", escape(&objective.name), objective.at_most));
    }
    page.push_str("</div>");
    if let Some(why) = &report.over {
        let _ = write!(page, "<p class='tile bad'>Ended early: {}</p>", escape(why));
    }
    if report.absent > 0 {
        let _ =
            write!(page, "<p class='tile bad'>{} clients were not connected at the end</p>", report.absent);
    }
    if let Some(why) = &report.limited {
        let _ = write!(page, "<p class='tile bad'>Delays and rates are not told: {}</p>", escape(why));
    }
}

fn page_open(tile: &mut dyn FnMut(&str, String, &str), report: &Report, verdict: &str, wrong: u64) {
    tile(verdict, wrong.to_string(), "deliveries lost, repeated, out of order or astray");
    tile("", report.total.delivered.to_string(), "deliveries");
    tile("", report.total.accepted.to_string(), "publishes accepted");
    if let Some(rate) = report.deliveries_per_second {
        tile("", format!("{rate:.0}"), "deliveries/s");
    }
    if let Some(delay) = report.delivery {
        tile("", format!("{:.2} ms", delay.p50), "delay p50");
        tile("", format!("{:.2} ms", delay.p99), "delay p99");
    }
    if let Some(resume) = report.resume {
        tile("", format!("{:.0} ms", resume.p99), "resume p99");
    }
    let cpu: f64 = report.server.iter().filter_map(|used| used.cpu_us_per_delivery).sum();
    if cpu > 0.0 {
        tile("", format!("{cpu:.2} µs"), "server CPU for each delivery");
    }
    if report.total.unrecoverable > 0 {
        tile("", report.total.not_recovered.to_string(), "missed while away: the server keeps nothing");
    }
    if let Some(capacity) = &report.capacity {
        let class = if capacity.is_servers { "" } else { "bad" };
        let what =
            if capacity.is_servers { "publishes/s held" } else { "publishes/s held, not the server's limit" };
        tile(class, format!("{:.0}", capacity.publishes_per_second), what);
    }
}

/// A delay, or no number where nothing was delivered.
fn known(delay: f64, second: &Second) -> f64 {
    if second.delay.count > 0 { delay } else { f64::NAN }
}

/// So few points that a page stays small, however long the run was; of what is thrown together, delays and memory show the worst.
fn thinned(series: &[Second]) -> Vec<Second> {
    let together = series.len().div_ceil(POINTS_MAX).max(1);
    let worst = |one: Percentiles, other: &Second| Percentiles {
        count: one.count + other.delay.count,
        p50: one.p50.max(other.delay.p50),
        p90: one.p90.max(other.delay.p90),
        p99: one.p99.max(other.delay.p99),
        p999: one.p999.max(other.delay.p999),
        max: one.max.max(other.delay.max),
    };
    let point = |part: &[Second]| -> Option<Second> {
        let last = part.last()?;
        let each = |values: fn(&Second) -> &Vec<f64>, join: fn(f64, f64) -> f64| -> Vec<f64> {
            let joined =
                |at: usize| part.iter().filter_map(|second| values(second).get(at).copied()).fold(0.0, join);
            (0..values(last).len()).map(joined).collect()
        };
        Some(Second {
            at: last.at,
            connected: part.iter().map(|second| second.connected).min()?,
            publishes: part.iter().map(|second| second.publishes).sum(),
            delivered: part.iter().map(|second| second.delivered).sum(),
            delay: part.iter().fold(Percentiles::default(), worst),
            cores: each(|second| &second.cores, f64::max),
            rss_mib: each(|second| &second.rss_mib, f64::max),
            lag_seconds: part.iter().filter_map(|second| second.lag_seconds).reduce(f64::max),
        })
    };
    series.chunks(together).filter_map(point).collect()
}

/// A second of a run is not exactly one.
fn per_second(series: &[Second], value: fn(&Second) -> u64) -> impl Fn(&Second) -> f64 {
    let ends: Vec<f64> = series.iter().map(|second| second.at).collect();
    move |second| {
        let at = ends.partition_point(|end| *end < second.at);
        let before = at.checked_sub(1).map_or(second.at - 1.0, |before| ends[before]);
        count(value(second)) / (second.at - before).max(0.1)
    }
}

fn chart(title: &str, series: &[Second], lines: &[(String, Vec<f64>)], page: &mut String) {
    let (Some(first), Some(last)) = (series.first(), series.last()) else { return };
    let highest = lines.iter().flat_map(|(_, values)| values).copied().fold(0.0, f64::max);
    if lines.is_empty() {
        return;
    }
    let (top, span) = (nice(highest), (last.at - first.at).max(1.0));
    let x = |at: f64| LEFT + (at - first.at) / span * (WIDTH - LEFT - 8.0);
    let y = |value: f64| HEIGHT - BOTTOM - value / top * (HEIGHT - BOTTOM - TOP);
    let _ = write!(
        page,
        "<figure><h2>{}</h2><svg viewBox='0 0 {WIDTH} {HEIGHT}' role=img aria-label='{0}'>",
        escape(title)
    );
    for step in 0..=STEPS {
        let value = top * f64::from(step) / f64::from(STEPS);
        let at = y(value);
        let _ = write!(
            page,
            "<line x1={LEFT} x2={WIDTH} y1={at:.1} y2={at:.1} stroke=#8884 /><text x={:.0} y={:.1} text-anchor=end>{}</text>",
            LEFT - 6.0,
            at + 4.0,
            short(value)
        );
        let seconds = first.at + span * f64::from(step) / f64::from(STEPS);
        // The last one would be cut off in the middle.
        let anchor = if step == STEPS { "end" } else { "middle" };
        let _ = write!(
            page,
            "<text x={:.0} y={:.0} text-anchor={anchor}>{seconds:.0} s</text>",
            x(seconds),
            HEIGHT - 8.0
        );
    }
    for ((_, values), colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let points: Vec<String> = series
            .iter()
            .zip(values)
            .filter(|(_, value)| value.is_finite())
            .map(|(second, value)| format!("{:.1},{:.1}", x(second.at), y(*value)))
            .collect();
        let _ = write!(
            page,
            "<polyline fill=none stroke={colour} stroke-width=1.8 points='{}'/>",
            points.join(" ")
        );
    }
    page.push_str("</svg><div class=key>");
    for ((name, _), colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let _ = write!(page, "<span><i style='background:{colour}'></i>{}</span>", escape(name));
    }
    page.push_str("</div></figure>");
}

/// A round number that is not below this one.
fn nice(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let magnitude = 10f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 4.0, 5.0, 8.0, 10.0];
    steps.into_iter().map(|step| step * magnitude).find(|step| *step >= value).unwrap_or(value)
}

fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.1} M", value / 1e6),
        value if value >= 1e4 => format!("{:.0} k", value / 1e3),
        value if value >= 10.0 || value == 0.0 => format!("{value:.0}"),
        value => format!("{value:.2}"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a chart does not show it")]
fn count(value: u64) -> f64 {
    value as f64
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Objective;

    #[test]
    fn the_page_has_everything_and_needs_nothing() {
        let series = vec![
            Second { at: 1.0, delivered: 10, ..Second::default() },
            Second { at: 2.0, ..Second::default() },
        ];
        let objectives = vec![Objective { name: "p99 <ms>".to_owned(), at_most: 5.0, found: None }];
        let report = Report { scenario: "fanout".to_owned(), series, objectives, ..Report::default() };
        let page = page(&report);
        assert!(page.contains("<polyline") && page.contains("p99 &lt;ms&gt;") && page.contains("not known"));
        assert!(!page.contains("http") && !page.contains("<script"), "it asks nobody for anything");
        assert_eq!((nice(0.0), nice(3.0), nice(81.0)), (1.0, 4.0, 100.0));
    }

    #[test]
    fn a_long_run_keeps_its_worst_and_all_that_was_counted() {
        let mut series =
            vec![Second { delivered: 2, rss_mib: vec![1.0], ..Second::default() }; 3 * POINTS_MAX];
        series[1].delay.p99 = 9.0;
        let points = thinned(&series);
        assert_eq!(points.len(), POINTS_MAX);
        assert!(points[0].delay.p99 > 8.0 && points[0].delivered == 6 && points[0].rss_mib == [1.0]);
        assert_eq!(thinned(&series[..5]), series[..5]);
    }
}
