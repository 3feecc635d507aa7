//! A chart as data, and how it is drawn: the same lines and bars as SVG and as PNG.

use crate::{Outcome, fail};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter};
use plotters::prelude::*;
use plotters::style::FontStyle;
use std::sync::OnceLock;

/// Colours that those who see fewer of them still tell apart (Okabe and Ito).
const PALETTE: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(40, 40, 40),
    RGBColor(150, 150, 150),
];
const INK: RGBColor = RGBColor(60, 60, 60);
const GRID: RGBColor = RGBColor(214, 214, 214);
const GRID_LIGHT: RGBColor = RGBColor(240, 240, 240);
const FONT: &str = "sans-serif";
const WIDTH: u32 = 860;
const HEIGHT: u32 = 380;
const BAR_HEIGHT: u32 = 34;
const LEGEND_HEIGHT: u32 = 20;
/// PNG files are drawn at twice the size, so that they are sharp on today's screens.
const PNG_SCALE: u32 = 2;

#[derive(Clone)]
pub struct Axis {
    pub title: String,
    pub low: f64,
    pub high: f64,
    pub ticks: Vec<f64>,
    pub light: Vec<f64>,
    pub label: fn(f64) -> String,
}

/// Lines and labels stand where the axis says, not where a library would put them.
impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let share = (value - self.low) / (self.high - self.low);
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        let light: &[f64] = if hint.weight().allow_light_points() {
            &self.light
        } else {
            &[]
        };
        self.ticks.iter().chain(light).copied().collect()
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Axis {
    fn format(value: &f64) -> String {
        value.to_string()
    }

    fn format_ext(&self, value: &f64) -> String {
        (self.label)(*value)
    }
}

pub struct Line {
    pub name: String,
    /// The contender's place, which is its colour.
    pub colour: usize,
    pub points: Vec<(f64, f64)>,
    pub is_filled: bool,
}

pub struct Bar {
    pub name: String,
    pub colour: usize,
    pub median: f64,
    pub min: f64,
    pub max: f64,
    /// Written behind the bar.
    pub words: String,
}

pub enum Shape {
    Lines {
        x: Axis,
        y: Axis,
        lines: Vec<Line>,
    },
    /// Horizontal, with the extremes as whiskers.
    Bars {
        x: Axis,
        bars: Vec<Bar>,
    },
}

pub struct Chart {
    /// Name of its files, without an ending.
    pub file: String,
    pub title: String,
    pub shape: Shape,
}

pub fn css_colour(index: usize) -> String {
    let RGBColor(red, green, blue) = PALETTE[index % PALETTE.len()];
    format!("#{red:02x}{green:02x}{blue:02x}")
}

fn colour(index: usize) -> RGBColor {
    PALETTE[index % PALETTE.len()]
}

/// The font is part of the program: what a machine has installed changes no picture.
fn register_font() -> Outcome<()> {
    static IS_REGISTERED: OnceLock<bool> = OnceLock::new();
    let is_registered = IS_REGISTERED.get_or_init(|| {
        let sets = [FontStyle::Normal, FontStyle::Bold];
        sets.into_iter().all(|style| {
            let bytes = match style {
                FontStyle::Bold => dejavu::sans::bold(),
                _ => dejavu::sans::regular(),
            };
            plotters::style::register_font(FONT, style, bytes).is_ok()
        })
    });
    if *is_registered {
        Ok(())
    } else {
        fail("the font of the charts cannot be read")
    }
}

impl Chart {
    fn size(&self) -> (u32, u32) {
        match &self.shape {
            Shape::Lines { .. } => (WIDTH, HEIGHT),
            Shape::Bars { bars, .. } => (WIDTH, 100 + BAR_HEIGHT * bars.len() as u32),
        }
    }

    pub fn svg(&self) -> Outcome<String> {
        register_font()?;
        let mut text = String::new();
        self.draw(
            &SVGBackend::with_string(&mut text, self.size()).into_drawing_area(),
            1,
        )?;
        Ok(text)
    }

    pub fn png(&self) -> Outcome<Vec<u8>> {
        register_font()?;
        let (width, height) = self.size();
        let (width, height) = (width * PNG_SCALE, height * PNG_SCALE);
        let mut pixels = vec![0; (width * height * 3) as usize];
        let backend = BitMapBackend::with_buffer(&mut pixels, (width, height));
        self.draw(&backend.into_drawing_area(), PNG_SCALE)?;
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.write_header()?.write_image_data(&pixels)?;
        Ok(file)
    }

    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>, scale: u32) -> Outcome<()> {
        let drawn = match &self.shape {
            Shape::Lines { x, y, lines } => draw_lines(area, &self.title, (x, y), lines, scale),
            Shape::Bars { x, bars } => draw_bars(area, &self.title, x, bars, scale),
        };
        match drawn {
            Ok(()) => Ok(()),
            Err(error) => fail(format!("cannot draw {}: {error}", self.file)),
        }
    }
}

type Drawn<B> = Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

fn font<'a>(size: u32, scale: u32, colour: &RGBColor) -> TextStyle<'a> {
    (FONT, size * scale).into_font().color(colour)
}

fn draw_lines<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    title: &str,
    (x, y): (&Axis, &Axis),
    lines: &[Line],
    scale: u32,
) -> Drawn<B> {
    area.fill(&WHITE)?;
    let area = area.margin(10 * scale, 0, 0, 0);
    let area = area.titled(title, font(17, scale, &INK))?;
    let area = draw_legend(&area, lines, scale)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(8 * scale)
        .margin_right(24 * scale)
        .x_label_area_size(46 * scale)
        .y_label_area_size(84 * scale)
        .build_cartesian_2d(x.clone(), y.clone())?;
    chart
        .configure_mesh()
        .axis_style(INK.stroke_width(scale))
        .bold_line_style(GRID.stroke_width(scale))
        .light_line_style(GRID_LIGHT.stroke_width(scale))
        .label_style(font(12, scale, &INK))
        .axis_desc_style(font(13, scale, &INK))
        .x_desc(&x.title)
        .y_desc(&y.title)
        .x_labels(x.ticks.len().max(1))
        .y_labels(y.ticks.len().max(1))
        .draw()?;
    for line in lines {
        let colour = colour(line.colour);
        let style = colour.stroke_width(2 * scale);
        if line.is_filled {
            let points = line.points.iter().copied();
            chart.draw_series(AreaSeries::new(points, y.low, colour.mix(0.12)))?;
        }
        chart.draw_series(LineSeries::new(line.points.iter().copied(), style))?;
    }
    area.present()
}

/// Rows of names above the plot, where they cover no line; gives what is left for the plot.
fn draw_legend<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    lines: &[Line],
    scale: u32,
) -> Result<DrawingArea<B, Shift>, DrawingAreaErrorKind<B::ErrorType>> {
    let style = font(12, scale, &INK);
    let unit = scale as i32;
    let start = 92 * unit;
    let (mut x, mut y) = (start, 10 * unit);
    let mut named: Vec<&str> = Vec::new();
    for line in lines {
        if named.contains(&line.name.as_str()) {
            continue;
        }
        named.push(&line.name);
        let (width, _) = area.estimate_text_size(&line.name, &style)?;
        let width = width as i32 + 46 * unit;
        if start < x && ((WIDTH * scale) as i32) < x + width {
            (x, y) = (start, y + LEGEND_HEIGHT as i32 * unit);
        }
        let stroke = colour(line.colour).stroke_width(3 * scale);
        let dash = vec![(x, y), (x + 20 * unit, y)];
        area.draw(&PathElement::new(dash, stroke))?;
        let place = (x + 26 * unit, y - 5 * unit);
        area.draw(&Text::new(line.name.as_str(), place, style.clone()))?;
        x += width;
    }
    Ok(area.split_vertically(y + 6 * unit).1)
}

fn draw_bars<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    title: &str,
    x: &Axis,
    bars: &[Bar],
    scale: u32,
) -> Drawn<B> {
    area.fill(&WHITE)?;
    let count = bars.len() as f64;
    let middles: Vec<f64> = (0..bars.len()).map(|at| at as f64 + 0.5).collect();
    let rows = Axis {
        title: String::new(),
        // The first one on top.
        low: count,
        high: 0.0,
        ticks: middles.clone(),
        light: Vec::new(),
        label: |_| String::new(),
    };
    let mut chart = ChartBuilder::on(area)
        .margin(10 * scale)
        .margin_right(24 * scale)
        .caption(title, font(17, scale, &INK))
        .x_label_area_size(46 * scale)
        .y_label_area_size(190 * scale)
        .build_cartesian_2d(x.clone(), rows)?;
    let name = |at: &f64| {
        bars.get(*at as usize)
            .map_or("", |bar| &bar.name)
            .to_owned()
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .axis_style(INK.stroke_width(scale))
        .bold_line_style(GRID.stroke_width(scale))
        .label_style(font(12, scale, &INK))
        .axis_desc_style(font(13, scale, &INK))
        .x_desc(&x.title)
        .x_labels(x.ticks.len().max(1))
        .y_labels(bars.len().max(1))
        .y_label_formatter(&name)
        .draw()?;
    for (bar, middle) in bars.iter().zip(middles) {
        let body = [(0.0, middle - 0.32), (bar.median, middle + 0.32)];
        chart.draw_series([Rectangle::new(body, colour(bar.colour).mix(0.75).filled())])?;
        let whisker = INK.stroke_width(scale + scale / 2);
        let ends = [bar.min, bar.max].map(|at| vec![(at, middle - 0.16), (at, middle + 0.16)]);
        let spans = [vec![(bar.min, middle), (bar.max, middle)]];
        let lines = ends.into_iter().chain(spans);
        chart.draw_series(lines.map(|line| PathElement::new(line, whisker)))?;
        let at = (bar.max.max(bar.median), middle);
        let words = EmptyElement::at(at)
            + Text::new(
                bar.words.clone(),
                (8 * scale as i32, -7 * scale as i32),
                font(12, scale, &INK),
            );
        chart.draw_series([words])?;
    }
    area.present()
}
