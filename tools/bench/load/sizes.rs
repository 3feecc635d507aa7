//! How large bodies are: one size, a range, an exponential, or a list with weights.

use super::Random;
use crate::check::FIELDS_SIZE;

pub const SIZE_MAX: usize = 4 << 20;
/// So many sizes are drawn before a run and used in an order drawn during it.
const DRAWN: usize = 4096;

#[derive(Clone, PartialEq, Debug)]
pub enum Sizes {
    Fixed(usize),
    Uniform(usize, usize),
    Exponential { mean: usize },
    Weighted(Vec<(usize, u32)>),
}

const WORDS: &str =
    "write SIZE, MIN-MAX (uniform), exp:MEAN (exponential), or SIZE:WEIGHT,SIZE:WEIGHT…";

pub fn parse(text: &str) -> Result<Sizes, String> {
    let number = |text: &str| match text.parse::<usize>() {
        Ok(size) if (FIELDS_SIZE..=SIZE_MAX).contains(&size) => Ok(size),
        Ok(size) => Err(format!(
            "{size} bytes: a body has {FIELDS_SIZE} (what a run checks itself by) to {SIZE_MAX}"
        )),
        Err(_) => Err(WORDS.to_string()),
    };
    if let Some(mean) = text.strip_prefix("exp:") {
        return Ok(Sizes::Exponential {
            mean: number(mean)?,
        });
    }
    if text.contains(':') {
        let part = |part: &str| {
            let (size, weight) = part.split_once(':').ok_or(WORDS)?;
            let weight = weight.parse().map_err(|_| WORDS)?;
            Ok((number(size)?, weight))
        };
        let parts: Result<Vec<(usize, u32)>, String> = text.split(',').map(part).collect();
        let parts = parts?;
        if parts.iter().all(|(_, weight)| *weight == 0) {
            return Err("one weight at least is above 0".into());
        }
        return Ok(Sizes::Weighted(parts));
    }
    match text.split_once('-') {
        Some((least, most)) if number(least)? <= number(most)? => {
            Ok(Sizes::Uniform(number(least)?, number(most)?))
        }
        Some(_) => Err("the smaller size comes first".into()),
        None => Ok(Sizes::Fixed(number(text)?)),
    }
}

impl std::fmt::Display for Sizes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Sizes::Fixed(size) => write!(f, "{size}"),
            Sizes::Uniform(least, most) => write!(f, "{least}-{most}"),
            Sizes::Exponential { mean } => write!(f, "exp:{mean}"),
            Sizes::Weighted(parts) => {
                for (index, (size, weight)) in parts.iter().enumerate() {
                    let comma = if 0 < index { "," } else { "" };
                    write!(f, "{comma}{size}:{weight}")?;
                }
                Ok(())
            }
        }
    }
}

impl Sizes {
    fn draw(&self, random: &mut Random) -> usize {
        match self {
            Sizes::Fixed(size) => *size,
            Sizes::Uniform(least, most) => least + random.below((most - least + 1) as u64) as usize,
            Sizes::Exponential { mean } => {
                let size = -random.unit_above_zero().ln() * *mean as f64;
                (size as usize).clamp(FIELDS_SIZE, SIZE_MAX.min(mean * 10))
            }
            Sizes::Weighted(parts) => {
                let sum: u64 = parts.iter().map(|(_, weight)| u64::from(*weight)).sum();
                let mut at = random.below(sum);
                for (size, weight) in parts {
                    match at.checked_sub(u64::from(*weight)) {
                        Some(rest) => at = rest,
                        None => return *size,
                    }
                }
                unreachable!("the draw is below the sum of the weights")
            }
        }
    }

    /// The largest body there may be.
    pub fn most(&self) -> usize {
        match self {
            Sizes::Fixed(size) | Sizes::Uniform(_, size) => *size,
            Sizes::Exponential { mean } => SIZE_MAX.min(mean * 10),
            Sizes::Weighted(parts) => parts.iter().map(|part| part.0).max().unwrap_or(0),
        }
    }
}

/// Padding that no compressor on the way gets smaller.
fn noise(size: usize) -> Vec<u8> {
    let mut random = Random::new(0x9E37_79B9_7F4A_7C15);
    (0..size).map(|_| (random.word() >> 24) as u8).collect()
}

/// Bodies but for the fields at their end: all are a beginning of the same noise, whose checksum
/// is known.
pub struct Bodies {
    padding: Vec<u8>,
    /// Length of a padding and its CRC-32.
    choices: Vec<(u32, u32)>,
    random: Random,
}

impl Bodies {
    pub fn new(sizes: &Sizes, seed: u64) -> Bodies {
        let mut random = Random::new(seed);
        let count = if matches!(sizes, Sizes::Fixed(_)) {
            1
        } else {
            DRAWN
        };
        let mut drawn: Vec<usize> = (0..count)
            .map(|_| sizes.draw(&mut random) - FIELDS_SIZE)
            .collect();
        drawn.sort_unstable();
        let padding = noise(drawn.last().copied().unwrap_or(0));
        let (mut crc, mut at) = (crc32fast::Hasher::new(), 0);
        let choice = |size: usize| {
            crc.update(&padding[at..size]);
            at = size;
            (size as u32, crc.clone().finalize())
        };
        let choices = drawn.into_iter().map(choice).collect();
        Bodies {
            choices,
            padding,
            random,
        }
    }

    /// The next padding and its CRC-32.
    #[inline]
    pub fn draw(&mut self) -> (&[u8], u32) {
        let at = match self.choices.len() {
            1 => 0,
            count => self.random.below(count as u64) as usize,
        };
        let (size, crc) = self.choices[at];
        (&self.padding[..size as usize], crc)
    }

    /// Mean size of a body.
    pub fn mean(&self) -> f64 {
        let sum: u64 = self.choices.iter().map(|choice| u64::from(choice.0)).sum();
        sum as f64 / self.choices.len() as f64 + FIELDS_SIZE as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_sizes_go_both_ways_and_nonsense_is_refused() {
        for text in ["1024", "100-4096", "exp:1024", "100:70,1000:20,10000:10"] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        for text in [
            "", "1", "5-x", "4096-100", "exp:", "100:0", "100:1,", "99999999", "exp:3",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn drawn_sizes_follow_their_distribution_and_carry_their_checksum() {
        for (text, mean) in [
            ("1000", 1000.0),
            ("100-1900", 1000.0),
            ("exp:1000", 1000.0),
            ("100:1,1900:1", 1000.0),
            ("500:3,2500:1", 1000.0),
        ] {
            let sizes = parse(text).unwrap();
            let mut bodies = Bodies::new(&sizes, 5);
            assert!((bodies.mean() - mean).abs() < mean * 0.06, "{text}");
            let mut sum = 0;
            for _ in 0..2000 {
                let (padding, crc) = bodies.draw();
                sum += padding.len() + FIELDS_SIZE;
                assert_eq!(crc32fast::hash(padding), crc, "{text}");
                assert!(padding.len() + FIELDS_SIZE <= sizes.most(), "{text}");
            }
            let drawn = sum as f64 / 2000.0;
            assert!((drawn - mean).abs() < mean * 0.1, "{text}: {drawn}");
        }
    }
}
