//! The programs.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyloop_testkit::wait::ThreadProbe;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_anyloop");

/// Nothing here takes so long, on however slow a machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// `anyloop`, with these arguments.
pub(crate) fn anyloop<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).env_remove("LISTEN_FDS").env_remove("LISTEN_PID");
    command
}

/// A program that runs, and is killed when it is dropped.
pub(crate) struct Running {
    child: Child,
    errors: Option<thread::JoinHandle<String>>,
}

/// What has become of it.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The lines of its output.
    pub(crate) fn lines(&self) -> Vec<&str> {
        std::str::from_utf8(&self.stdout).expect("it prints UTF-8").lines().collect()
    }

    /// It ended with this status, and has said one line, with these words in it.
    #[track_caller]
    pub(crate) fn expect(&self, code: i32, words: &str) {
        assert_eq!(self.code(), Some(code), "{}", self.stderr);
        let line = self.stderr.strip_suffix('\n').expect("it says something");
        assert!(line.starts_with("anyloop: ") && !line.contains('\n'), "{line}");
        assert!(line.contains(words), "{line}");
    }
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::start_with(command, Stdio::piped())
    }

    /// The same with an output that is given.
    pub(crate) fn start_with(command: &mut Command, stdout: impl Into<Stdio>) -> Self {
        command.stdout(stdout).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let mut stderr = child.stderr.take().expect("it is piped");
        let errors = thread::spawn(move || {
            let mut said = String::new();
            stderr.read_to_string(&mut said).expect("it says UTF-8");
            said
        });
        Self { child, errors: Some(errors) }
    }

    pub(crate) fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("it is piped")
    }

    /// The same, if it has an input that is piped.
    pub(crate) fn try_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    pub(crate) fn stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().expect("it is piped")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("it runs");
    }

    /// Stops it while it waits, until [`resume`](Self::resume).
    pub(crate) fn suspend(&self) {
        ThreadProbe::main_of(self.child.id()).until_asleep();
        self.signal(Signal::STOP);
        let seen = waitpid(Some(Pid::from_child(&self.child)), WaitOptions::UNTRACED);
        let (_, status) = seen.expect("it is a child").expect("it was waited for");
        assert!(status.stopped(), "{status:?}");
    }

    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Waits until it ends by itself.
    pub(crate) fn end(mut self) -> Ended {
        let stdout = self.child.stdout.take();
        let printed = thread::spawn(move || {
            let mut printed = Vec::new();
            stdout.map(|mut stdout| stdout.read_to_end(&mut printed));
            printed
        });
        let status = self.wait();
        let errors = self.errors.take().expect("it is taken once");
        let (stdout, stderr) = (printed.join(), errors.join());
        Ended { status, stdout: stdout.expect("no panic"), stderr: stderr.expect("no panic") }
    }

    fn wait(&mut self) -> ExitStatus {
        let pid = Pid::from_child(&self.child);
        let (tell, told) = mpsc::channel::<()>();
        // Ends it when it has taken too long, so that the wait below ends in any case.
        let watchdog = thread::spawn(move || {
            let late = told.recv_timeout(DEADLINE) == Err(mpsc::RecvTimeoutError::Timeout);
            if late {
                let _ = kill_process(pid, Signal::KILL);
            }
            late
        });
        let status = self.child.wait().expect("it is a child");
        drop(tell);
        assert!(!watchdog.join().expect("no panic"), "it took too long");
        status
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

/// `anyloop serve`, from when it has said where it listens.
pub(crate) struct Server {
    pub(crate) program: Running,
    /// In the order in which it has said them, without `listening on `.
    pub(crate) addresses: Vec<String>,
}

impl Server {
    /// A server on one port of 127.0.0.1, with these options.
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::listening(anyloop(["serve", "--listen", "127.0.0.1:0"]).args(options), 1)
    }

    /// A server that is to listen on so many addresses.
    pub(crate) fn listening(command: &mut Command, count: usize) -> Self {
        let mut program = Running::start(command);
        let mut lines = BufReader::new(program.stdout()).lines();
        let mut address = || {
            let line = lines.next().expect("it says where it listens").expect("in UTF-8");
            line.strip_prefix("listening on ").expect(&line).to_string()
        };
        let addresses = (0..count).map(|_| address()).collect();
        Self { program, addresses }
    }

    /// The first address.
    pub(crate) fn address(&self) -> SocketAddr {
        let address = self.addresses[0].strip_prefix("ws://").expect("it is TCP");
        address.parse().expect("it is an address")
    }

    /// A URL of this path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("ws://{}{path}", self.address())
    }

    /// Stops it while it waits, until [`resume`](Self::resume).
    pub(crate) fn suspend(&self) {
        self.program.suspend();
    }

    pub(crate) fn resume(&self) {
        self.program.resume();
    }

    /// Has it end.
    pub(crate) fn stop(self) -> Ended {
        self.program.signal(Signal::TERM);
        self.program.end()
    }
}

/// `anyloop connect` with these arguments and this input.
pub(crate) fn connect(arguments: &[&str], input: &[u8]) -> Ended {
    let mut program = Running::start(anyloop(["connect"]).args(arguments).stdin(Stdio::piped()));
    let mut stdin = program.stdin();
    let input = input.to_vec();
    let writer = thread::spawn(move || stdin.write_all(&input)); // it may not read it
    let ended = program.end();
    let _ = writer.join().expect("no panic");
    ended
}

/// Runs a shell's script, in which `$0` is the command.
pub(crate) fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script, PROGRAM]).env_remove("LISTEN_FDS").env_remove("LISTEN_PID");
    command
}

/// A folder of this test's own, removed in the end.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("anyloop-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("there is room");
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

/// What a command says that ends by itself.
pub(crate) fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("it starts")
}
