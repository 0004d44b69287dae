//! Cost against participants as a picture: the gateway's line over that of libopus alone.

use std::fmt::Write;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
/// Around the plot: room for numbers at the left and below, for the title above.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 48.0;
const BOTTOM: f64 = 56.0;
/// About so many lines of the grid.
const STEPS: f64 = 6.0;

/// One conference: percent of a core.
pub(super) struct Point {
    pub(super) participants: usize,
    pub(super) gateway: f64,
    pub(super) floor: f64,
}

/// The picture of some conferences, the smallest first.
pub(super) fn svg(points: &[Point]) -> String {
    let most = points.iter().map(|point| point.participants).max().unwrap_or(1) as f64;
    let highest = points.iter().map(|point| point.gateway.max(point.floor)).fold(0.0, f64::max);
    let step = round_step(highest / STEPS);
    let top = (highest / step).ceil().max(1.0) * step;
    let x = |participants: f64| LEFT + (WIDTH - LEFT - RIGHT) * participants / most;
    let y = |percent: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * percent / top;

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    let text = |x: f64, y: f64, anchor: &str, colour: &str, words: &str| {
        format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{words}</text>\n")
    };
    let mut rows = String::new();
    for number in 0..=(top / step).round() as usize {
        let percent = number as f64 * step;
        let at = y(percent);
        let end = WIDTH - RIGHT;
        let _ = writeln!(rows, "<path d=\"M{LEFT} {at:.1}H{end}\" stroke=\"#ddd\"/>");
        rows += &text(LEFT - 8.0, at + 4.0, "end", "#444", &format!("{percent} %"));
    }
    for point in points {
        rows += &text(
            x(point.participants as f64),
            HEIGHT - BOTTOM + 20.0,
            "middle",
            "#444",
            &point.participants.to_string(),
        );
    }
    let below = "participants: half of them telephones, who all speak, half members of the room, of whom two speak";
    rows += &text(WIDTH / 2.0, HEIGHT - 12.0, "middle", "#444", below);
    rows += &text(LEFT, 24.0, "start", "#06c", "galene-sip: all of it, in percent of a core");
    rows += &text(WIDTH - RIGHT, 24.0, "end", "#888", "of that, libopus for those who speak");
    svg += &rows;
    for (colour, value) in [("#888", Point::floor as fn(&Point) -> f64), ("#06c", Point::gateway)] {
        let corners = points.iter().map(|point| format!("{:.1},{:.1}", x(point.participants as f64), y(value(point))));
        let corners = corners.collect::<Vec<_>>().join(" ");
        let _ = writeln!(svg, "<polyline points=\"{corners}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>");
        for point in points {
            let (x, y) = (x(point.participants as f64), y(value(point)));
            let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
        }
    }
    svg + "</svg>\n"
}

impl Point {
    fn gateway(&self) -> f64 {
        self.gateway
    }

    fn floor(&self) -> f64 {
        self.floor
    }
}

/// The next 1, 2 or 5 times a power of ten.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.max(1e-3).log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|factor| factor * power).find(|step| *step >= least).unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round() {
        assert_eq!([0.9, 1.0, 1.7, 2.3, 6.0, 30.0].map(round_step), [1.0, 1.0, 2.0, 5.0, 10.0, 50.0]);
    }

    #[test]
    fn every_conference_has_its_dot_and_number_inside_the_picture() {
        let points = [1, 8, 96].map(|count| Point { participants: count, gateway: count as f64 / 4.0, floor: 1.0 });
        let svg = svg(&points);
        assert_eq!(svg.matches("<circle").count(), 6);
        assert!(svg.contains(">96</text>") && svg.contains(">25 %</text>"));
        // The costliest lies at the right end, below the top.
        assert!(svg.contains("cx=\"696.0\" cy=\"59.8\""), "{svg}");
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
    }
}
