//! A chat server in memory that keeps nothing and breaks one promise once, for the tests of the load generator's verdict.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

/// What the server does wrong, once, at its tenth message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    LosePush,
    DoublePush,
    SwapPushes,
    DoubleOk,
    WrongPlace,
    Refuse,
    Overload,
    Close,
}

/// The message at which it is done.
const AT: u64 = 10;

/// The server.
pub(crate) struct FaultyServer {
    fault: Option<Fault>,
    users: HashMap<String, u64>,
    conns: HashMap<u64, TcpStream>,
    /// By the two users, the smaller first: the conversation's id and its last entry.
    convs: HashMap<(u64, u64), (u64, u64)>,
    messages: u64,
    /// A push that waits for the next one to overtake it, and to whom it goes.
    held: Option<(u64, Value)>,
}

impl FaultyServer {
    /// Starts one on a free port. Its threads end with their connections, and the listener's with the test.
    pub(crate) fn start(fault: Option<Fault>) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let server = Arc::new(Mutex::new(Self {
            fault,
            users: HashMap::new(),
            conns: HashMap::new(),
            convs: HashMap::new(),
            messages: 0,
            held: None,
        }));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let server = Arc::clone(&server);
                thread::spawn(move || serve(&server, &stream));
            }
        });
        addr
    }

    fn answer(&mut self, user: &mut u64, request: &Value, stream: &TcpStream) {
        let id = &request["id"];
        match request["type"].as_str().unwrap() {
            "register" => {
                let number = u64::try_from(self.users.len()).unwrap() + 1;
                self.users.insert(request["name"].as_str().unwrap().to_owned(), number);
                write(stream, &json!({"type": "ok", "id": id, "user": number}));
            }
            "login" => {
                *user = self.users[request["name"].as_str().unwrap()];
                self.conns.insert(*user, stream.try_clone().unwrap());
                write(stream, &json!({"type": "ok", "id": id, "user": user, "token": "t", "session": user}));
            }
            "send" => self.send(*user, request, stream),
            _ => {}
        }
    }

    fn send(&mut self, from: u64, request: &Value, stream: &TcpStream) {
        self.messages += 1;
        let fault = self.fault.filter(|_| self.messages == AT);
        let id = &request["id"];
        let to = match (request["user"].as_u64(), request["conv"].as_u64()) {
            (Some(to), _) => to,
            (_, conv) => {
                let (pair, _) = self.convs.iter().find(|(_, (id, _))| Some(*id) == conv).unwrap();
                if pair.0 == from { pair.1 } else { pair.0 }
            }
        };
        match fault {
            Some(Fault::Refuse) => {
                return write(
                    stream,
                    &json!({"type": "error", "id": id, "code": "forbidden", "message": "no"}),
                );
            }
            Some(Fault::Overload) => {
                let refusal = json!({"type": "error", "id": id, "code": "overloaded", "message": "later", "retry_after_ms": 20});
                return write(stream, &refusal);
            }
            Some(Fault::Close) => return stream.shutdown(Shutdown::Both).unwrap(),
            _ => {}
        }
        let count = u64::try_from(self.convs.len()).unwrap();
        let (conv, last) = self.convs.entry((from.min(to), from.max(to))).or_insert((count + 1, 0));
        *last += 1;
        let (conv, seq) = (*conv, *last);
        let shown = if fault == Some(Fault::WrongPlace) { seq + 1_000 } else { seq };
        let ok = json!({"type": "ok", "id": id, "conv": conv, "seq": shown, "time_ms": 1});
        write(stream, &ok);
        if fault == Some(Fault::DoubleOk) {
            write(stream, &ok);
        }
        let push = json!({
            "type": "message", "conv": conv, "kind": "direct", "seq": seq, "from": from, "from_name": "a",
            "to": to, "to_name": "b", "text": request["text"], "time_ms": 1,
        });
        self.push(to, push, fault);
    }

    fn push(&mut self, to: u64, push: Value, fault: Option<Fault>) {
        let target = &self.conns[&to];
        match fault {
            Some(Fault::LosePush) => return,
            Some(Fault::SwapPushes) => {
                self.held = Some((to, push));
                return;
            }
            Some(Fault::DoublePush) => write(target, &push),
            _ => {}
        }
        write(target, &push);
        if let Some((_, held)) = self.held.take_if(|(held_for, _)| *held_for == to) {
            write(target, &held);
        }
    }
}

fn serve(server: &Mutex<FaultyServer>, stream: &TcpStream) {
    write(stream, &json!({"type": "hello", "version": 1}));
    let mut user = 0;
    for line in BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok) {
        let request = serde_json::from_str(&line).unwrap();
        server.lock().unwrap().answer(&mut user, &request, stream);
    }
    // The other handle on it would keep it open, and the client waiting.
    let _ = stream.shutdown(Shutdown::Both);
}

/// A client that is gone is not missed.
fn write(mut stream: &TcpStream, value: &Value) {
    let _ = stream.write_all(format!("{value}\n").as_bytes());
}
