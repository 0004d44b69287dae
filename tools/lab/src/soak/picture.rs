//! A soak as a picture: calls, memory, descriptors, late ticks and MOS over time, each in a strip of its own.

use std::fmt::Write;

use super::samples::Sample;

const WIDTH: f64 = 820.0;
const STRIP: f64 = 90.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 20.0;
/// Between a strip's curve and its neighbours.
const MARGIN: f64 = 14.0;

type Curve = (&'static str, &'static str, fn(&Sample) -> Option<f64>);

const CURVES: [Curve; 5] = [
    ("calls at once", "#06c", |sample| Some(sample.calls as f64)),
    ("resident, MB", "#c60", |sample| Some(sample.resident_kib as f64 * 1024.0 / 1e6)),
    ("descriptors", "#393", |sample| Some(sample.descriptors as f64)),
    ("late ticks so far", "#c33", |sample| Some(sample.late_ticks as f64)),
    ("MOS of ended calls", "#639", |sample| sample.mos),
];

/// The picture of all sessions, one after the other.
pub(super) fn svg(samples: &[Sample]) -> String {
    let height = CURVES.len() as f64 * STRIP + 40.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    let last = samples.len().saturating_sub(1).max(1) as f64;
    let x = |at: usize| LEFT + (WIDTH - LEFT - RIGHT) * at as f64 / last;
    for (strip, (name, colour, value)) in CURVES.iter().enumerate() {
        let values: Vec<(usize, f64)> =
            samples.iter().enumerate().filter_map(|(at, sample)| Some((at, value(sample)?))).collect();
        let lowest = values.iter().map(|(_, value)| *value).fold(f64::INFINITY, f64::min).min(0.0);
        let highest = values.iter().map(|(_, value)| *value).fold(lowest + 1.0, f64::max);
        let (top, bottom) = (strip as f64 * STRIP + MARGIN, (strip as f64 + 1.0) * STRIP - MARGIN);
        let y = |value: f64| bottom - (bottom - top) * (value - lowest) / (highest - lowest);
        let corners: Vec<String> = values.iter().map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value))).collect();
        let end = WIDTH - RIGHT;
        let _ = writeln!(svg, "<path d=\"M{LEFT} {bottom:.1}H{end}\" stroke=\"#ddd\"/>");
        let _ = writeln!(svg, "<text x=\"8\" y=\"{:.1}\" fill=\"{colour}\">{name}</text>", (top + bottom) / 2.0);
        let _ = writeln!(
            svg,
            "<text x=\"8\" y=\"{:.1}\" fill=\"#444\">at most {highest:.1}</text>",
            (top + bottom) / 2.0 + 18.0
        );
        let points = corners.join(" ");
        let _ = writeln!(svg, "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>");
    }
    let minutes = samples.len() as f64 / 6.0;
    let below = format!("{minutes:.0} minutes, a sample every 10 s");
    let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"{:.1}\" fill=\"#444\">{below}</text>", height - 14.0);
    svg + "</svg>\n"
}
