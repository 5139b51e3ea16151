//! The binary as its users meet it: `server --check`, `dev` and the commands that it suggests, HTTP.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use pinrail_node::testing::free_port;

const BINARY: &str = env!("CARGO_BIN_EXE_pinrail");

fn server(folder: &Path, toml: &str, flags: &[&str]) -> Output {
    let file = folder.join("server.toml");
    std::fs::write(&file, toml).expect("it can be written");
    let mut command = Command::new(BINARY);
    command.arg("server").arg("-f").arg(&file).args(flags);
    command.output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn check_says_what_a_server_would_do_and_starts_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let data = folder.path().join("data");
    let toml = format!("cluster = \"c\"\nnode = \"n\"\ndata = \"{}\"\n", data.display());
    let said = server(folder.path(), &toml, &["--check"]);
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    assert!(text(&said.stdout).contains("would be created"), "{said:?}");
    assert!(!data.exists());
}

#[test]
fn a_refused_file_names_file_line_and_key_and_exits_2() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    for flags in [&["--check"][..], &[]] {
        let said = server(folder.path(), "cluster = \"c\"\nnode = \"n\"\nlissten = 1\n", flags);
        assert_eq!(said.status.code(), Some(2), "{said:?}");
        let error = text(&said.stderr);
        assert!(error.contains("server.toml:3:") && error.contains("lissten"), "{error}");
    }
    let open = "cluster = \"c\"\nnode = \"n\"\nlisten = { grpc = \"10.1.2.3:7420\" }\n";
    let said = server(folder.path(), open, &["--check"]);
    assert_eq!(said.status.code(), Some(2));
    assert!(text(&said.stderr).contains("--insecure"), "{said:?}");
    assert_eq!(server(folder.path(), open, &["--check", "--insecure"]).status.code(), Some(0));
    let missing = Command::new(BINARY).args(["server", "-f", "/nowhere/server.toml"]).output();
    assert_eq!(missing.expect("the binary runs").status.code(), Some(2));
}

/// A running `pinrail server` of its own cluster.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// Starts it and waits until its directory is taken and its port is open.
    pub(crate) fn start(toml: &str, folder: &Path, port: u16) -> Self {
        let file = folder.join("running.toml");
        std::fs::write(&file, toml).expect("it can be written");
        let mut command = Command::new(BINARY);
        command.arg("server").arg("-f").arg(&file).stderr(Stdio::null());
        let mut running = Self(command.spawn().expect("the binary runs"));
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while !health(port) {
            assert!(tokio::time::Instant::now() < deadline, "it does not answer");
            assert!(running.0.try_wait().expect("it is ours").is_none(), "it ended");
            std::thread::yield_now();
        }
        running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // When a test failed before it ended it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn health(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let sent = stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    sent.is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.contains(" 200 ")
}

pub(crate) fn config(cluster: &str, data: &Path, grpc: u16, http: u16) -> String {
    format!(
        "cluster = \"{cluster}\"\nnode = \"n\"\ndata = \"{}\"\n\
         listen = {{ grpc = \"127.0.0.1:{grpc}\", peer = \"127.0.0.1:{}\", http = \"127.0.0.1:{http}\" }}\n",
        data.display(),
        free_port()
    )
}

#[test]
fn a_directory_or_port_that_is_taken_is_named_and_nothing_is_touched() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let data = folder.path().join("data");
    let (grpc, http) = (free_port(), free_port());
    let first = Running::start(&config("c", &data, grpc, http), folder.path(), http);
    let refused = |toml: &str, words: &[&str]| {
        let said = server(folder.path(), toml, &[]);
        assert_eq!(said.status.code(), Some(1), "{said:?}");
        let error = text(&said.stderr);
        for word in words {
            assert!(error.contains(word), "{word:?} is not in {error}");
        }
    };
    let data_named = data.display().to_string();
    let same = config("c", &data, free_port(), free_port());
    refused(&same, &[&data_named, "another process"]);
    let elsewhere = folder.path().join("elsewhere");
    let port = config("c", &elsewhere, grpc, free_port());
    refused(&port, &["gRPC", &grpc.to_string()]);
    assert!(!elsewhere.exists(), "a port in use is said before anything is made");
    assert!(health(http), "the first one goes on");
    drop(first);
    let other = config("another", &data, free_port(), free_port());
    refused(&other, &[&data_named, "of cluster c,", "cluster another"]);
    let again = config("c", &data, grpc, http);
    drop(Running::start(&again, folder.path(), http));
}

/// A running `pinrail dev`, ended by SIGTERM.
struct Dev {
    child: Child,
    said: Vec<String>,
    _data: TempDir,
}

impl Dev {
    /// Waits until it has said everything that it says at its start.
    fn start(flags: &[&str], last: &str) -> Self {
        let data = tempfile::tempdir().expect("a temporary folder can be made");
        let child = Command::new(BINARY)
            .args(["dev", "--port", "0", "--data"])
            .arg(data.path())
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let mut dev = Self { child, said: Vec::new(), _data: data };
        let out = dev.child.stdout.take().expect("it is piped");
        for line in BufReader::new(out).lines() {
            dev.said.push(line.expect("it speaks UTF-8"));
            if dev.said.last().is_some_and(|line| line.contains(last)) {
                return dev;
            }
        }
        panic!("it ended: {:?}", dev.said);
    }

    fn find(&self, what: &str) -> &str {
        let found = self.said.iter().find(|line| line.contains(what));
        found.unwrap_or_else(|| panic!("{what} is not in {:?}", self.said)).trim()
    }

    fn terminate(&mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs");
        assert!(sent.success());
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // When a test failed before it ended it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a line as a shell would, with `pinrail` being this binary.
fn shell(line: &str) -> Output {
    let folder = Path::new(BINARY).parent().expect("a binary lies in a folder").display();
    let script = format!("PATH=\"{folder}:$PATH\" {line}");
    let home = tempfile::tempdir().expect("a temporary folder can be made");
    let mut command = Command::new("sh");
    command.env("HOME", home.path()).env_remove("XDG_CONFIG_HOME").arg("-c").arg(script);
    command.output().expect("a shell runs")
}

fn http(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("it can be set");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

#[test]
fn the_commands_that_dev_suggests_end_in_an_answer() {
    let mut dev = Dev::start(&[], "Ctrl-C ends it");
    let started = shell(dev.find("pinrail run start"));
    assert!(started.status.success(), "{started:?}");
    let watched = shell(dev.find("pinrail run watch"));
    assert!(watched.status.success(), "{watched:?}");
    assert!(text(&watched.stdout).contains("Hello, you."), "{watched:?}");
    let explained = shell(dev.find("pinrail run explain"));
    assert!(explained.status.success(), "{explained:?}");
    assert!(text(&explained.stdout).contains("completed"), "{explained:?}");
    let switched = shell(dev.find("pinrail switch"));
    assert!(switched.status.success(), "{switched:?}");
    let rolled_back = shell(dev.find("pinrail rollback"));
    assert!(rolled_back.status.success(), "{rolled_back:?}");

    let metrics = dev.find("metrics");
    let address = metrics.split("http://").nth(1).and_then(|rest| rest.split('/').next());
    let address = address.expect("it names an address").to_owned();
    assert!(http(&address, "/healthz").starts_with("HTTP/1.1 200"));
    assert!(http(&address, "/readyz").contains("dev-0 leads"));
    let metrics = http(&address, "/metrics");
    let run = "pinrail_runs_total{agent=\"hello\",bundle=\"v1\",outcome=\"completed\"} 1";
    assert!(metrics.contains(run), "{metrics}");
    assert!(metrics.contains("pinrail_cluster_is_leader{node=\"dev-0\"} 1"), "{metrics}");
    assert_eq!(dev.terminate(), Some(0));
}

#[test]
fn three_nodes_of_dev_form_one_cluster() {
    let mut dev = Dev::start(&["--nodes", "3", "--print-env", "--empty"], "PINRAIL_ENDPOINT");
    let exports = dev.said[0].clone();
    assert_eq!(exports.split(',').count(), 3, "{exports}");
    let endpoint = exports.split('=').nth(1).expect("a list");
    let status = shell(&format!("pinrail cluster status -o json --endpoint {endpoint}"));
    assert!(status.status.success(), "{status:?}");
    assert_eq!(text(&status.stdout).matches("\"name\"").count(), 3, "{status:?}");
    assert_eq!(dev.terminate(), Some(0));
}
