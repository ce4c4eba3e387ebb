// SPDX-License-Identifier: GPL-2.0

//! The terminal: its modes, size and keys.

use nix::{
    errno::Errno,
    poll::{poll, PollFd, PollFlags, PollTimeout},
    sys::{
        signal::{raise, SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        termios::{self, InputFlags, LocalFlags, SetArg, SpecialCharacterIndices, Termios},
    },
};
use std::{
    env,
    fs::File,
    io::{self, IsTerminal, Read, Write},
    os::fd::{AsFd, AsRawFd},
    time::{Duration, Instant},
};

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A character.
    Char(char),
    /// Enter.
    Enter,
    /// Escape.
    Escape,
    /// Backspace.
    Backspace,
    /// Arrow up.
    Up,
    /// Arrow down.
    Down,
    /// Page up.
    PageUp,
    /// Page down.
    PageDown,
    /// Home.
    Home,
    /// End.
    End,
}

/// Reason why a wait ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Keys.
    Keys(Vec<Key>),
    /// The terminal has another size, or the program was resumed.
    Redraw,
    /// A signal asks the program to end, or the terminal is gone.
    Quit,
    /// The time is over.
    Timeout,
}

/// The terminal in raw mode, on its alternate screen. Restored when this is dropped.
pub struct Terminal {
    saved: Termios,
    signals: SignalFd,
}

/// No line wrap: a character that is wider than thought must not scroll the screen.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// Whether standard input and output are a terminal that can be controlled.
pub fn is_usable() -> bool {
    let dumb = env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    !dumb && io::stdin().is_terminal() && io::stdout().is_terminal()
}

nix::ioctl_read_bad!(get_window_size, libc::TIOCGWINSZ, libc::winsize);

/// The width and height of the terminal that is the standard output.
pub fn size() -> Option<(usize, usize)> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    #[allow(unsafe_code)]
    // SAFETY: TIOCGWINSZ writes a `winsize`, to which the pointer is valid.
    unsafe { get_window_size(io::stdout().as_raw_fd(), &raw mut size) }.ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then(|| (size.ws_col.into(), size.ws_row.into()))
}

impl Terminal {
    /// Takes the terminal over.
    pub fn new() -> io::Result<Self> {
        let saved = termios::tcgetattr(io::stdin())?;
        let mut mask = SigSet::empty();
        for signal in [
            Signal::SIGINT,
            Signal::SIGTERM,
            Signal::SIGHUP,
            Signal::SIGQUIT,
            Signal::SIGTSTP,
            Signal::SIGWINCH,
        ] {
            mask.add(signal);
        }
        mask.thread_block()?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let terminal = Self { saved, signals };
        terminal.enter()?;
        Ok(terminal)
    }

    fn enter(&self) -> io::Result<()> {
        let mut raw = self.saved.clone();
        raw.input_flags.remove(InputFlags::ICRNL | InputFlags::IXON);
        raw.local_flags
            .remove(LocalFlags::ICANON | LocalFlags::ECHO);
        raw.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
        raw.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
        termios::tcsetattr(io::stdin(), SetArg::TCSADRAIN, &raw)?;
        self.write(ENTER)
    }

    fn leave(&self) -> io::Result<()> {
        self.write(LEAVE)?;
        Ok(termios::tcsetattr(
            io::stdin(),
            SetArg::TCSADRAIN,
            &self.saved,
        )?)
    }

    /// Writes text at once.
    pub fn write(&self, text: &str) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()
    }

    /// Waits for a key or a signal, until `deadline`.
    pub fn wait(&self, deadline: Instant) -> io::Result<Event> {
        // poll() counts in milliseconds: do not wake up too early.
        let left = deadline.saturating_duration_since(Instant::now());
        let left = left + Duration::from_micros(999);
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let stdin = io::stdin();
        let mut fds = [
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, timeout) {
            Ok(0) | Err(Errno::EINTR) => return Ok(Event::Timeout),
            result => result?,
        };
        if let Some(info) = self.signals.read_signal()? {
            let signal = Signal::try_from(info.ssi_signo as i32).ok();
            return match signal {
                Some(Signal::SIGWINCH) => Ok(Event::Redraw),
                Some(Signal::SIGTSTP) => {
                    self.leave()?;
                    raise(Signal::SIGSTOP)?;
                    self.enter()?;
                    Ok(Event::Redraw)
                }
                _ => Ok(Event::Quit),
            };
        }
        let mut bytes = [0; 64];
        // A file of its own, since `Stdin` buffers.
        let mut input = File::from(stdin.as_fd().try_clone_to_owned()?);
        match input.read(&mut bytes) {
            Ok(n) if n > 0 => Ok(Event::Keys(keys(&bytes[..n]))),
            _ => Ok(Event::Quit),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.leave();
    }
}

/// Decodes what the terminal sends.
fn keys(bytes: &[u8]) -> Vec<Key> {
    let text = String::from_utf8_lossy(bytes);
    let mut rest = &text[..];
    let mut keys = Vec::new();
    const SEQUENCES: [(&str, Key); 14] = [
        ("\x1b[A", Key::Up),
        ("\x1bOA", Key::Up),
        ("\x1b[B", Key::Down),
        ("\x1bOB", Key::Down),
        ("\x1b[5~", Key::PageUp),
        ("\x1b[6~", Key::PageDown),
        ("\x1b[H", Key::Home),
        ("\x1bOH", Key::Home),
        ("\x1b[1~", Key::Home),
        ("\x1b[F", Key::End),
        ("\x1bOF", Key::End),
        ("\x1b[4~", Key::End),
        ("\r", Key::Enter),
        ("\n", Key::Enter),
    ];
    'keys: while let Some(c) = rest.chars().next() {
        for (sequence, key) in SEQUENCES {
            if let Some(after) = rest.strip_prefix(sequence) {
                keys.push(key);
                rest = after;
                continue 'keys;
            }
        }
        rest = &rest[c.len_utf8()..];
        match c {
            '\x1b' => {
                // The rest of an unknown sequence, if it is one.
                if let Some(sequence) = rest.strip_prefix(['[', 'O']) {
                    let end = sequence.find(|c: char| c.is_ascii_alphabetic() || c == '~');
                    rest = end.map_or("", |end| &sequence[end + 1..]);
                } else {
                    keys.push(Key::Escape);
                }
            }
            '\x7f' | '\x08' => keys.push(Key::Backspace),
            c if c.is_control() => {}
            c => keys.push(Key::Char(c)),
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoded() {
        let q = Key::Char('q');
        assert_eq!(keys(b"\x1b[A\x1bOBq"), [Key::Up, Key::Down, q]);
        assert_eq!(keys(b"\x1b"), [Key::Escape]);
        assert_eq!(keys(b"\x1b[15~q\x01"), [q]);
        assert_eq!(keys(b"\x7f\r"), [Key::Backspace, Key::Enter]);
        assert_eq!(keys("é".as_bytes()), [Key::Char('é')]);
    }
}
