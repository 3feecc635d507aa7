//! Enough of Rust's syntax to hold rules over it: code without texts and comments, imports, functions.

/// One file, ready to be asked.
pub struct Source {
    /// As git names it.
    pub path: String,
    /// The file's lines.
    pub lines: Vec<String>,
    /// The same lines; texts and comments are blanks.
    pub code: Vec<String>,
    /// Whether a line belongs to a test.
    pub is_test: Vec<bool>,
}

/// A path that is named in the code, like `std::fs::read` or `crate::io::Op`.
#[derive(Debug, PartialEq, Eq)]
pub struct Mention {
    /// From 0.
    pub line: usize,
    /// Its parts, `use` braces unfolded.
    pub parts: Vec<String>,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    /// From 0.
    pub line: usize,
    pub line_count: usize,
}

/// One word or sign of the code.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Word {
    line: usize,
    text: String,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        let code: Vec<String> = blank(text).split('\n').map(str::to_owned).collect();
        let mut source = Self {
            path: path.to_owned(),
            lines: text.split('\n').map(str::to_owned).collect(),
            is_test: vec![is_test_file(path); code.len()],
            code,
        };
        for (first, last) in source.test_modules() {
            source.is_test[first..=last].fill(true);
        }
        source
    }

    /// Lines outside tests; what is behind the last end of line is none.
    pub fn line_count(&self) -> usize {
        let end = self.lines.len() - usize::from(self.lines.last().is_some_and(String::is_empty));
        self.is_test[..end]
            .iter()
            .filter(|is_test| !**is_test)
            .count()
    }

    fn words(&self) -> Vec<Word> {
        let mut words = Vec::new();
        for (line, code) in self.code.iter().enumerate() {
            let mut rest = code.trim_start();
            while let Some(first) = rest.chars().next() {
                let is_name = |c: char| c.is_alphanumeric() || c == '_';
                let len = match first {
                    c if is_name(c) => rest.find(|c| !is_name(c)).unwrap_or(rest.len()),
                    ':' if rest.starts_with("::") => 2,
                    c => c.len_utf8(),
                };
                words.push(Word {
                    line,
                    text: rest[..len].to_owned(),
                });
                rest = rest[len..].trim_start();
            }
        }
        words
    }

    /// Every path of at least two parts, and every part of every `use`.
    pub fn mentions(&self) -> Vec<Mention> {
        let words = self.words();
        let mut mentions = Vec::new();
        let mut at = 0;
        while at < words.len() {
            let follows_path = 0 < at && words[at - 1].text == "::";
            if words[at].text == "use" || !follows_path && is_path(&words[at..]) {
                at += usize::from(words[at].text == "use");
                at += unfold(&words[at..], &[], &mut mentions);
            } else {
                at += 1;
            }
        }
        mentions
    }

    /// Every function that has a body, tests too.
    pub fn functions(&self) -> Vec<Function> {
        let words = self.words();
        let mut functions = Vec::new();
        for (at, word) in words.iter().enumerate() {
            let Some(name) = words.get(at + 1).filter(|name| is_word(&name.text)) else {
                continue;
            };
            if word.text != "fn" {
                continue;
            }
            let end = body_end(&words[at..]);
            if let Some(last) = end {
                let line_count = last - word.line + 1;
                functions.push(Function {
                    name: name.text.clone(),
                    line: word.line,
                    line_count,
                });
            }
        }
        functions
    }

    /// First and last line of each `#[cfg(test)] mod`.
    fn test_modules(&self) -> Vec<(usize, usize)> {
        let words = self.words();
        let marker = ["#", "[", "cfg", "(", "test", ")", "]"];
        let mut modules = Vec::new();
        for at in 0..words.len().saturating_sub(marker.len()) {
            let is_marked = marker
                .iter()
                .zip(&words[at..])
                .all(|(want, word)| *want == word.text);
            if is_marked && words[at + marker.len()].text == "mod" {
                let last = body_end(&words[at + marker.len()..]);
                modules.push((words[at].line, last.unwrap_or(words[at].line)));
            }
        }
        modules
    }
}

/// Files of tests lie beside what they test.
fn is_test_file(path: &str) -> bool {
    path.split('/')
        .any(|part| part == "tests" || part == "tests.rs")
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

fn is_path(words: &[Word]) -> bool {
    is_word(&words[0].text) && words.get(1).is_some_and(|word| word.text == "::")
}

/// The line of the bracket that closes the first body, or `None` where `;` comes first.
fn body_end(words: &[Word]) -> Option<usize> {
    let mut depth = 0;
    let mut in_brackets = 0;
    for word in words {
        match word.text.as_str() {
            "(" | "[" => in_brackets += 1,
            ")" | "]" => in_brackets -= 1,
            ";" if depth == 0 && in_brackets == 0 => return None,
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                if depth == 0 {
                    return Some(word.line);
                }
            }
            _ => {}
        }
    }
    None
}

/// Takes one path or one tree of a `use`; returns how many words it took.
fn unfold(words: &[Word], before: &[String], mentions: &mut Vec<Mention>) -> usize {
    let mut parts = before.to_vec();
    let mut at = 0;
    while let Some(word) = words.get(at) {
        if word.text == "{" && !parts.is_empty() {
            at += 1;
            while words.get(at).is_some_and(|word| word.text != "}") {
                at += unfold(&words[at..], &parts, mentions).max(1);
                at += usize::from(words.get(at).is_some_and(|word| word.text == ","));
            }
            return at + 1;
        }
        if is_word(&word.text) || word.text == "*" {
            parts.push(word.text.clone());
            at += 1;
        }
        if words.get(at).is_none_or(|word| word.text != "::") {
            break;
        }
        at += 1;
    }
    if before.len() < parts.len() {
        mentions.push(Mention {
            line: words[0].line,
            parts,
        });
    }
    at
}

/// The text with comments, texts and characters blanked; lines stay where they are.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let before = out.chars().next_back().unwrap_or(' ');
        let is_name = before.is_alphanumeric() || before == '_';
        let len = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => comment_len(rest),
            '"' => text_len(rest),
            'r' | 'b' | 'c' if !is_name => prefixed_len(rest),
            '\'' => character_len(rest),
            _ => 0,
        };
        if len == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            let blanks = rest[..len]
                .chars()
                .map(|c| if c == '\n' { '\n' } else { ' ' });
            out.extend(blanks);
            rest = &rest[len..];
        }
    }
    out
}

/// Comments nest.
fn comment_len(text: &str) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn text_len(text: &str) -> usize {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|(_, c)| {
        let ends = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |(at, _)| at + 1)
}

/// `r"…"`, `r#"…"#`, `b"…"`, `br"…"`, `c"…"`, `b'…'`; 0 where it is a name.
fn prefixed_len(text: &str) -> usize {
    let prefix = text
        .find(|c| !matches!(c, 'r' | 'b' | 'c'))
        .unwrap_or(text.len());
    let rest = &text[prefix..];
    if 2 < prefix {
        return 0;
    }
    if text[..prefix].contains('r') {
        let hashes = rest.len() - rest.trim_start_matches('#').len();
        if !rest[hashes..].starts_with('"') {
            return 0;
        }
        let close = format!("\"{}", "#".repeat(hashes));
        let start = prefix + hashes + 1;
        return text[start..]
            .find(&close)
            .map_or(text.len(), |at| start + at + close.len());
    }
    match rest.chars().next() {
        Some('"') => prefix + text_len(rest),
        Some('\'') if &text[..prefix] == "b" => prefix + character_len(rest),
        _ => 0,
    }
}

/// A character with its quotes; 0 where it is a lifetime.
fn character_len(text: &str) -> usize {
    let mut rest = text.char_indices().skip(1);
    match rest.next() {
        Some((_, '\\')) => {
            rest.next();
            rest.find(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 1)
        }
        Some(_) => match rest.next() {
            Some((at, '\'')) => at + 1,
            _ => 0,
        },
        None => 0,
    }
}
