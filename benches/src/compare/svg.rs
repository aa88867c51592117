//! A chart with two logarithmic axes as SVG: all that the plots need, so no library of drawings comes in for it.

use std::fmt::Write;

/// Lines over two logarithmic axes.
#[derive(Debug)]
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) x: String,
    pub(crate) y: String,
    pub(crate) series: Vec<Series>,
}

/// One line. Points that are not above zero are left out.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;

/// Told apart also by those who see fewer colours (Okabe and Ito, 2008).
const COLOURS: [&str; 6] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9",
];

/// An axis: its ends, as powers of its base.
struct Axis {
    base: f64,
    first: i32,
    last: i32,
}

impl Axis {
    fn over(base: f64, values: impl Iterator<Item = f64>) -> Self {
        let logs = values
            .filter(|value| *value > 0.0)
            .map(|value| value.log(base));
        let (least, most) = logs.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), log| {
            (least.min(log), most.max(log))
        });
        if least > most {
            return Self {
                base,
                first: 0,
                last: 1,
            };
        }
        // A hair of room, so that a value that is a power of the base is an end itself.
        let (first, last) = ((least + 1e-9).floor() as i32, (most - 1e-9).ceil() as i32);
        Self {
            base,
            first,
            last: last.max(first + 1),
        }
    }

    /// Where a value is, from 0 to 1.
    fn share(&self, value: f64) -> f64 {
        (value.log(self.base) - f64::from(self.first)) / f64::from(self.last - self.first)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        (self.first..=self.last).map(|power| self.base.powi(power))
    }
}

impl Chart {
    pub(crate) fn to_svg(&self) -> String {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let x_axis = Axis::over(4.0, points().map(|point| point.0));
        let y_axis = Axis::over(10.0, points().map(|point| point.1));
        let x_of = |x: f64| LEFT + x_axis.share(x) * (WIDTH - LEFT - RIGHT);
        let y_of = |y: f64| HEIGHT - BOTTOM - y_axis.share(y) * (HEIGHT - TOP - BOTTOM);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
        );
        let mut text = |x: f64, y: f64, anchor: &str, words: &str| {
            // Writing to a string does not fail.
            let _ = writeln!(
                out,
                "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
                escaped(words)
            );
        };
        text(LEFT, TOP - 16.0, "start", &self.title);
        text(LEFT - 8.0, TOP - 2.0, "end", &self.y);
        text(
            (LEFT + WIDTH - RIGHT) / 2.0,
            HEIGHT - 10.0,
            "middle",
            &self.x,
        );
        for tick in x_axis.ticks() {
            text(
                x_of(tick),
                HEIGHT - BOTTOM + 18.0,
                "middle",
                &number(tick, 1024.0),
            );
        }
        for tick in y_axis.ticks() {
            text(LEFT - 8.0, y_of(tick) + 4.0, "end", &number(tick, 1000.0));
        }
        for (index, series) in self.series.iter().enumerate() {
            let y = TOP + 18.0 * index as f64 + 10.0;
            text(WIDTH - RIGHT + 34.0, y, "start", &series.name);
        }
        for tick in y_axis.ticks() {
            line(
                &mut out,
                (LEFT, y_of(tick)),
                (WIDTH - RIGHT, y_of(tick)),
                "#dddddd",
                1.0,
            );
        }
        for tick in x_axis.ticks() {
            line(
                &mut out,
                (x_of(tick), TOP),
                (x_of(tick), HEIGHT - BOTTOM),
                "#eeeeee",
                1.0,
            );
        }
        for (index, series) in self.series.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let path: Vec<String> = series
                .points
                .iter()
                .filter(|(x, y)| *x > 0.0 && *y > 0.0)
                .map(|(x, y)| format!("{:.1},{:.1}", x_of(*x), y_of(*y)))
                .collect();
            let _ = writeln!(
                out,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                path.join(" ")
            );
            let y = TOP + 18.0 * index as f64 + 6.0;
            line(
                &mut out,
                (WIDTH - RIGHT + 10.0, y),
                (WIDTH - RIGHT + 30.0, y),
                colour,
                2.0,
            );
        }
        out + "</svg>\n"
    }
}

fn line(out: &mut String, from: (f64, f64), to: (f64, f64), colour: &str, width: f64) {
    let _ = writeln!(
        out,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\" stroke-width=\"{width}\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn number(value: f64, step: f64) -> String {
    let (mut value, mut unit) = (value, "");
    for next in ["k", "M", "G"] {
        if value >= step {
            (value, unit) = (value / step, next);
        }
    }
    format!("{value}{unit}")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_has_its_lines_within_its_frame() {
        let chart = Chart {
            title: "a < b".to_owned(),
            x: "bytes".to_owned(),
            y: "MiB/s".to_owned(),
            series: vec![
                Series {
                    name: "up".to_owned(),
                    points: vec![(64.0, 1.0), (1024.0, 100.0), (4096.0, 0.0)],
                },
                Series {
                    name: "nothing".to_owned(),
                    points: Vec::new(),
                },
            ],
        };
        let svg = chart.to_svg();
        assert!(
            svg.starts_with("<svg") && svg.ends_with("</svg>\n"),
            "{svg}"
        );
        assert!(
            svg.contains("a &lt; b") && svg.contains(">1k</text>"),
            "{svg}"
        );
        // From the lower left corner to the upper right one, if 64 and 4,096, 1 and 100 are the ends.
        assert!(svg.contains("points=\"70.0,390.0 430.0,40.0\""), "{svg}");
    }

    #[test]
    fn an_empty_chart_is_a_chart() {
        let chart = Chart {
            title: String::new(),
            x: String::new(),
            y: String::new(),
            series: Vec::new(),
        };
        assert!(chart.to_svg().contains("</svg>"));
    }
}
