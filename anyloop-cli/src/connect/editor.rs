//! The line that a person types: editing, completion and the history, by rustyline.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::history::{History as _, MemHistory};
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{
    Cmd, ColorMode, ConditionalEventHandler, Config, Context, Event, EventContext, EventHandler,
    Helper, KeyCode, KeyEvent, Modifiers, Movement, RepeatCount,
};
use unicode_width::UnicodeWidthChar;

use super::command;
use super::edited_line::EditedLine;
use super::history::{self, History};
use super::screen::{self, PROMPT, Screen};

/// What a person has done.
pub(super) enum Typed {
    Line(String),
    /// A line that is not UTF-8.
    NotUtf8,
    /// Ctrl-D, or Ctrl-C in an empty line.
    End,
}

pub(super) struct Editor {
    editor: rustyline::Editor<LineHelper, MemHistory>,
    history: Option<History>,
    screen: Arc<Screen>,
}

impl Editor {
    /// An editor with the history of this file. Without the file, it remembers only the lines of this session. A line
    /// for which `heading` returns a text is drawn once more when it ends, with this text in place of the prompt.
    pub(super) fn new(
        screen: &Arc<Screen>,
        history: Option<&Path>,
        heading: impl Fn(&str) -> Option<String> + 'static,
    ) -> io::Result<Self> {
        let config = Config::builder()
            .max_history_size(history::ENTRIES)
            .and_then(|config| config.history_ignore_dups(true))
            .map_err(io::Error::other)?
            .history_ignore_space(true)
            // Without colours it would not report what it draws.
            .color_mode(ColorMode::Forced)
            .completion_type(rustyline::CompletionType::List)
            .build();
        let lines = MemHistory::with_config(&config);
        let mut editor =
            rustyline::Editor::with_history(config, lines).map_err(io::Error::other)?;
        editor.set_helper(Some(LineHelper {
            screen: screen.clone(),
            files: FilenameCompleter::new(),
            heading: Box::new(heading),
            accepted: RefCell::new(None),
            cursor: Cell::new(0),
        }));
        editor.bind_sequence(KeyEvent::ctrl('C'), EventHandler::Conditional(Box::new(ClearLine)));
        let complete = EventHandler::Conditional(Box::new(BeginList(screen.clone())));
        editor.bind_sequence(KeyEvent(KeyCode::Tab, Modifiers::NONE), complete);
        let mut this = Self { editor, history: None, screen: screen.clone() };
        if let Some(path) = history {
            let (history, entries) = History::open(path);
            for entry in entries {
                let _ = this.editor.add_history_entry(entry); // it is in memory
            }
            this.history = Some(history);
        }
        Ok(this)
    }

    /// Reads a line. What is shown meanwhile appears above it.
    pub(super) fn read(&mut self) -> io::Result<Typed> {
        self.screen.begin_line();
        if let Some(helper) = self.editor.helper() {
            helper.accepted.take();
        }
        let line = self.editor.readline(PROMPT);
        self.screen.end_line();
        match line {
            Ok(line) => {
                let is_new = self.editor.history_mut().add(&line).unwrap_or(false);
                let history = self.history.as_mut().filter(|_| is_new);
                if let Some(Err(error)) = history.map(|history| history.append(&line)) {
                    self.history = None;
                    self.screen.show(&format!("* the history is not kept: {error}"))?;
                }
                Ok(Typed::Line(line))
            }
            Err(ReadlineError::Eof | ReadlineError::Interrupted) => Ok(Typed::End),
            Err(ReadlineError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                Ok(Typed::NotUtf8)
            }
            Err(ReadlineError::Io(error)) => Err(error),
            Err(error) => Err(io::Error::other(error)),
        }
    }
}

/// Ctrl-C clears a line that is not empty.
struct ClearLine;

impl ConditionalEventHandler for ClearLine {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, line: &EventContext<'_>) -> Option<Cmd> {
        (!line.line().is_empty()).then_some(Cmd::Kill(Movement::WholeBuffer))
    }
}

/// Tab completes, as by default, and may show completions.
struct BeginList(Arc<Screen>);

impl ConditionalEventHandler for BeginList {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, _: &EventContext<'_>) -> Option<Cmd> {
        self.0.begin_list();
        None
    }
}

/// Returns what takes the place of the prompt before a line that is drawn once more.
type Heading = Box<dyn Fn(&str) -> Option<String>>;

/// Answers what the editor asks about its line, and reports the line to the screen.
struct LineHelper {
    screen: Arc<Screen>,
    files: FilenameCompleter,
    heading: Heading,
    /// The line has ended and is drawn once more, with this text in place of the prompt.
    accepted: RefCell<Option<String>>,
    /// The cursor is before this byte of the line.
    cursor: Cell<usize>,
}

impl Helper for LineHelper {}

impl Highlighter for LineHelper {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        self.screen.change_line(|line| line.prompt = prompt.into());
        self.accepted.borrow().clone().map_or(Cow::Borrowed(prompt), Cow::Owned)
    }

    fn highlight<'l>(&self, text: &'l str, cursor: usize) -> Cow<'l, str> {
        self.screen.change_line(|line| {
            line.text.clear();
            line.text.push_str(text);
            line.cursor = cursor;
        });
        self.cursor.set(cursor);
        if self.accepted.borrow().is_none() {
            return Cow::Borrowed(text);
        }
        // The editor counts the prompt, not the heading: behind a line that filled its row, it begins another one.
        let line = EditedLine::new(PROMPT, text, cursor);
        match line.is_full(screen::columns()) {
            true => Cow::Owned(format!("{text}\x1b[A")),
            false => Cow::Borrowed(text),
        }
    }

    /// Each change is drawn by the two above.
    fn highlight_char(&self, _: &str, _: usize, _: CmdKind) -> bool {
        true
    }
}

impl Validator for LineHelper {
    /// The line is always valid.
    fn validate(&self, line: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        self.screen.accept_line();
        // A line that fills its row is drawn once more without a heading, too, for what `highlight` adds to it.
        let is_full = EditedLine::new(PROMPT, line.input(), 0).is_full(screen::columns());
        let heading = (self.heading)(line.input()).or_else(|| is_full.then(|| PROMPT.to_string()));
        // The editor draws the line when it moves the cursor to the end. If the cursor does not move, any message makes
        // the editor draw it. Drawn twice, a line whose heading takes more rows than the prompt would stay in part.
        let after_cursor = line.input().get(self.cursor.get()..).unwrap_or_default();
        let stays =
            after_cursor.chars().all(|c| c.width().unwrap_or(0) == 0 && !"\n\t".contains(c));
        let message = (heading.is_some() && stays).then(String::new);
        self.accepted.replace(heading);
        Ok(ValidationResult::Valid(message))
    }
}

impl Hinter for LineHelper {
    type Hint = String;
}

impl Completer for LineHelper {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let typed = &line[..pos];
        if typed.starts_with("/binary ") {
            return self.files.complete_path(line, pos);
        }
        let names = command::completions(typed).filter(|_| typed.starts_with('/'));
        let pair = |name: &str| Pair { display: name.into(), replacement: format!("{name} ") };
        Ok((0, names.map(pair).collect()))
    }
}
