//! Starts the programs, and waits for their end.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyloop_testkit::wait::ThreadProbe;
use rustix::process::{Pid, Signal, WaitOptions, geteuid, kill_process, waitpid};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_anyloop");

/// The limit of time for anything that a test waits for, long enough for a slow machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A command that runs `anyloop` with these arguments.
pub(crate) fn anyloop<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = without_environment(Command::new(PROGRAM));
    command.args(arguments);
    command
}

/// As `anyloop`, for tests of permissions: if the user is root, the command gives its capabilities up.
pub(crate) fn unprivileged<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    if !geteuid().is_root() {
        return anyloop(arguments);
    }
    // Another user might not be able to run the program where it was built.
    let mut command = without_environment(Command::new("setpriv"));
    command.args(["--bounding-set=-all", "--inh-caps=-all", PROGRAM]).args(arguments);
    let works = Command::new("setpriv").args(["--bounding-set=-all", "true"]).status();
    let works = works.is_ok_and(|status| status.success());
    assert!(works, "as root, this test needs setpriv (util-linux) and CAP_SETPCAP");
    command
}

/// Lets programs that are started from now on receive SIGHUP, also if it is ignored here, as under nohup: they begin
/// with the default of a signal that has a handler here.
pub(crate) fn stop_ignoring_hang_up() {
    let flag = signal_hook::flag::register(signal_hook::consts::SIGHUP, Arc::default());
    flag.expect("SIGHUP can have a handler");
}

/// Removes the variables that the command reads.
fn without_environment(mut command: Command) -> Command {
    command.env_remove("LISTEN_FDS").env_remove("LISTEN_PID").env_remove("RUST_LOG");
    for name in ["http_proxy", "https_proxy", "ws_proxy", "wss_proxy", "all_proxy", "no_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    command
}

/// A running program. It is killed when this is dropped.
pub(crate) struct Running {
    child: Child,
    errors: Option<thread::JoinHandle<String>>,
    /// The lines of standard error that nobody has waited for yet.
    lines: mpsc::Receiver<String>,
}

/// The exit status and the output of a program that has ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The lines of its standard output.
    pub(crate) fn lines(&self) -> Vec<&str> {
        std::str::from_utf8(&self.stdout).expect("the output is UTF-8").lines().collect()
    }

    /// Asserts that the program has exited with this code, and that standard error is one line that contains `words`.
    #[track_caller]
    pub(crate) fn expect(&self, code: i32, words: &str) {
        assert_eq!(self.code(), Some(code), "{}", self.stderr);
        let line = self.stderr.strip_suffix('\n').expect("standard error is a line");
        assert!(line.starts_with("anyloop: ") && !line.contains('\n'), "{line}");
        assert!(line.contains(words), "{line}");
    }
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::start_with(command, Stdio::piped())
    }

    /// As `start`, with this standard output.
    pub(crate) fn start_with(command: &mut Command, stdout: impl Into<Stdio>) -> Self {
        command.stdout(stdout).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let stderr = child.stderr.take().expect("the stream is a pipe and not taken yet");
        let (sender, lines) = mpsc::channel();
        let errors = thread::spawn(move || {
            let (mut stderr, mut printed) = (BufReader::new(stderr), String::new());
            loop {
                let before = printed.len();
                stderr.read_line(&mut printed).expect("standard error is UTF-8");
                if printed.len() == before {
                    return printed;
                }
                let _ = sender.send(printed[before..].to_string()); // the test may have ended
            }
        });
        Self { child, errors: Some(errors), lines }
    }

    pub(crate) fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("the stream is a pipe and not taken yet")
    }

    /// The standard input, if it is a pipe.
    pub(crate) fn try_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    pub(crate) fn stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().expect("the stream is a pipe and not taken yet")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("the process exists");
    }

    /// The most memory that it has needed, in bytes (Linux).
    pub(crate) fn peak_memory(&self) -> Option<usize> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(peak.trim().strip_suffix(" kB")?.parse::<usize>().ok()? << 10)
    }

    /// Waits for a line of standard error with these words, and returns it.
    #[track_caller]
    pub(crate) fn expect_error(&self, words: &str) -> String {
        let end = Instant::now() + DEADLINE;
        loop {
            let line = self.lines.recv_timeout(end.saturating_duration_since(Instant::now()));
            let line = line.unwrap_or_else(|_| panic!("{words:?} is not in standard error"));
            if line.contains(words) {
                return line;
            }
        }
    }

    /// Waits until the program sleeps, and stops it until [`resume`](Self::resume).
    pub(crate) fn suspend(&self) {
        ThreadProbe::main_of(self.child.id()).until_asleep();
        self.signal(Signal::STOP);
        let seen = waitpid(Some(Pid::from_child(&self.child)), WaitOptions::UNTRACED);
        let (_, status) = seen.expect("the process is a child").expect("it has changed its state");
        assert!(status.stopped(), "{status:?}");
    }

    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Waits until the program ends. Kills it and panics after [`DEADLINE`].
    pub(crate) fn end(mut self) -> Ended {
        let stdout = self.child.stdout.take();
        let printed = thread::spawn(move || {
            let mut printed = Vec::new();
            stdout.map(|mut stdout| stdout.read_to_end(&mut printed));
            printed
        });
        let status = self.wait();
        let errors = self.errors.take().expect("end is called once");
        let (stdout, stderr) = (printed.join(), errors.join());
        Ended {
            status,
            stdout: stdout.expect("the thread does not panic"),
            stderr: stderr.expect("the thread does not panic"),
        }
    }

    fn wait(&mut self) -> ExitStatus {
        let pid = Pid::from_child(&self.child);
        let (sender, receiver) = mpsc::channel::<()>();
        // Kills the program at the deadline, so that the wait below always ends.
        let watchdog = thread::spawn(move || {
            let late = receiver.recv_timeout(DEADLINE) == Err(mpsc::RecvTimeoutError::Timeout);
            if late {
                let _ = kill_process(pid, Signal::KILL);
            }
            late
        });
        let status = self.child.wait().expect("the process is a child");
        drop(sender);
        assert!(
            !watchdog.join().expect("the thread does not panic"),
            "the program did not end within {DEADLINE:?}"
        );
        status
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill(); // fails if the program has ended
        let _ = self.child.wait();
    }
}

/// A running `anyloop serve` that has printed its addresses.
pub(crate) struct Server {
    pub(crate) program: Running,
    /// The addresses in the order of its output, without `listening on `.
    pub(crate) addresses: Vec<String>,
}

impl Server {
    /// A server on one port of 127.0.0.1, with these options.
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::listening(anyloop(["serve", "--listen", "127.0.0.1:0"]).args(options), 1)
    }

    /// Starts a server, and reads the `count` addresses that it listens on.
    pub(crate) fn listening(command: &mut Command, count: usize) -> Self {
        let mut program = Running::start(command);
        let mut lines = BufReader::new(program.stdout()).lines();
        let mut address = || {
            let line = lines.next().expect("a line for each address").expect("the output is UTF-8");
            line.strip_prefix("listening on ").expect(&line).to_string()
        };
        let addresses = (0..count).map(|_| address()).collect();
        Self { program, addresses }
    }

    /// The first address.
    pub(crate) fn address(&self) -> SocketAddr {
        let address = self.addresses[0].strip_prefix("ws://").expect("the first address is TCP");
        address.parse().expect("the address is valid")
    }

    /// The URL with this path at the first address.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("ws://{}{path}", self.address())
    }

    /// Waits until the program sleeps, and stops it until [`resume`](Self::resume).
    pub(crate) fn suspend(&self) {
        self.program.suspend();
    }

    pub(crate) fn resume(&self) {
        self.program.resume();
    }

    /// Sends SIGTERM, and waits for the end of the program.
    pub(crate) fn stop(self) -> Ended {
        self.program.signal(Signal::TERM);
        self.program.end()
    }
}

/// Runs `anyloop connect` with these arguments and this input.
pub(crate) fn connect(arguments: &[&str], input: &[u8]) -> Ended {
    let mut program = Running::start(anyloop(["connect"]).args(arguments).stdin(Stdio::piped()));
    let mut stdin = program.stdin();
    let input = input.to_vec();
    let writer = thread::spawn(move || stdin.write_all(&input)); // fails if the program does not read all of it
    let ended = program.end();
    let _ = writer.join().expect("the thread does not panic");
    ended
}

/// A command that runs a shell script, with `anyloop` as `$0`.
pub(crate) fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script, PROGRAM]).env_remove("LISTEN_FDS").env_remove("LISTEN_PID");
    command
}

/// A temporary directory. It is removed when this is dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("anyloop-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the directory can be created");
        Self(path)
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs a command without input. Returns its output.
pub(crate) fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("the program starts")
}
