//! Where the other nodes are, so that a request can be passed on to the one that it is for.
//!
//! May use: the broker's announcements, limits. Deliberately absent: the passing on. There is no list that could be out of date: a
//! node is asked by its name, and nobody hears the question once it is gone.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{Arc, OnceLock},
    time::Duration,
};

use parking_lot::Mutex;
use shared::{
    broker::{Audience, Broker, BrokerError},
    domain::NodeId,
    rate::{Bucket, Rate, Taken},
};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use crate::{
    announcement::Announcement,
    limits::{self, Limit},
};

/// How long an answer is waited for.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);
/// How often a node is asked: a question or its answer may be lost.
const ASKED_MAX: usize = 3;
/// Questions in a second: requests that nobody has to show a token for name nodes, and there need not be any of that name.
pub const QUESTIONS_PER_SECOND_MAX: u32 = 100;
/// Questions at once.
const QUESTIONS_BURST: u32 = 500;
/// Nodes that are remembered.
const KNOWN_MAX: usize = 10_000;

/// The nodes that this one has heard of.
pub struct Peers {
    node: NodeId,
    broker: Arc<dyn Broker>,
    /// Where this node listens.
    own: OnceLock<SocketAddr>,
    known: Mutex<HashMap<NodeId, SocketAddr>>,
    started: Instant,
    questions: Mutex<Bucket>,
    /// Told when there is more to know.
    heard: watch::Sender<()>,
}

impl Peers {
    /// Nobody is known yet.
    pub fn new(node: NodeId, broker: Arc<dyn Broker>) -> Arc<Self> {
        let heard = watch::Sender::new(());
        let (known, questions) = (Mutex::default(), Mutex::default());
        Arc::new(Self {
            node,
            broker,
            own: OnceLock::new(),
            known,
            started: Instant::now(),
            questions,
            heard,
        })
    }

    /// This node is reached there, and answers when it is asked.
    pub fn listen_at(&self, address: SocketAddr) {
        let _ = self.own.set(address);
    }

    /// Where a node is; `None` when it is no more.
    ///
    /// # Errors
    /// When Redis does not answer, or the node does not, or too many are asked for.
    pub async fn find(&self, node: &NodeId) -> Result<Option<SocketAddr>, BrokerError> {
        for _ in 0..ASKED_MAX {
            let mut heard = self.heard.subscribe();
            if let Some(known) = self.known(node) {
                return Ok(Some(known));
            }
            self.may_ask()?;
            let question = Announcement::WhereAreYou { asked_by: self.node.clone() };
            if self.broker.announce(&Audience::Node(node.clone()), question.encode()).await? == 0 {
                return Ok(None);
            }
            let answer = async { while self.known(node).is_none() && heard.changed().await.is_ok() {} };
            // Then it is asked again.
            let _ = timeout(ANSWER_TIME_MAX, answer).await;
        }
        self.known(node).map(Some).ok_or_else(|| BrokerError::Unavailable(format!("{node} does not answer")))
    }

    fn may_ask(&self) -> Result<(), BrokerError> {
        let rate = Rate::new(QUESTIONS_PER_SECOND_MAX, QUESTIONS_BURST);
        let now_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        match self.questions.lock().take(rate, 1, now_us) {
            Taken::Granted(_) => Ok(()),
            Taken::Refused(_) => {
                limits::refused(Limit::PeerQuestions);
                Err(BrokerError::Unavailable("too many nodes are asked for that are not known".to_owned()))
            }
        }
    }

    /// A node does not answer there any more.
    pub fn forget(&self, node: &NodeId) {
        self.known.lock().remove(node);
    }

    /// A node asks where this one is.
    pub async fn asked(&self, by: NodeId) {
        let Some(address) = self.own.get() else { return };
        let answer = Announcement::Here { node: self.node.clone(), address: *address };
        if let Err(error) = self.broker.announce(&Audience::Node(by), answer.encode()).await {
            // It asks again.
            tracing::debug!(%error, "a node was not told where this one is");
        }
    }

    /// A node says where it is.
    pub fn here(&self, node: NodeId, address: SocketAddr) {
        {
            let mut known = self.known.lock();
            if known.len() >= KNOWN_MAX {
                known.clear();
            }
            known.insert(node, address);
        }
        self.heard.send_replace(());
    }

    fn known(&self, node: &NodeId) -> Option<SocketAddr> {
        self.known.lock().get(node).copied()
    }
}

/// The address by which others reach a node that listens at `listening`: one that means every address of the machine becomes
/// the one by which the machine reaches the world.
pub fn reachable(listening: SocketAddr) -> SocketAddr {
    if !listening.ip().is_unspecified() {
        return listening;
    }
    let outward = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        // Nothing is sent: it only decides by which way it would go. The address is reserved for documents.
        socket.connect(("192.0.2.1", 9))?;
        Ok(socket.local_addr()?.ip())
    };
    let ip = outward().unwrap_or(IpAddr::from([127, 0, 0, 1]));
    SocketAddr::new(ip, listening.port())
}

#[cfg(test)]
mod tests {
    use shared::broker::{
        Inbound,
        memory::{Memory, MemoryBroker},
        sequence::Limits,
    };

    use super::*;

    /// A node that hears what it is told, and where the others believe it is.
    fn node(name: &str, memory: &Arc<Memory>) -> Arc<Peers> {
        let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new(Arc::clone(memory)));
        let id = NodeId::parse(name).unwrap();
        let peers = Peers::new(id.clone(), Arc::clone(&broker));
        let hearing = Arc::clone(&peers);
        broker.start(
            &id,
            Arc::new(move |inbound| {
                let Inbound::Announcement(bytes) = inbound else { return };
                match Announcement::decode(&bytes).unwrap() {
                    Announcement::Here { node, address } => hearing.here(node, address),
                    Announcement::WhereAreYou { asked_by } => {
                        let peers = Arc::clone(&hearing);
                        tokio::spawn(async move { peers.asked(asked_by).await });
                    }
                    other => panic!("{other:?}"),
                }
            }),
        );
        peers
    }

    #[tokio::test]
    async fn a_node_is_found_by_its_name_as_long_as_it_is_there() {
        let memory = Memory::new(4, Limits::default());
        let (one, two) = (node("one", &memory), node("two", &memory));
        let address = "192.0.2.7:80".parse().unwrap();
        two.listen_at(address);
        let id = |name: &str| NodeId::parse(name).unwrap();
        assert_eq!(one.find(&id("two")).await.unwrap(), Some(address));
        assert_eq!(one.find(&id("three")).await.unwrap(), None);
        one.forget(&id("two"));
        assert_eq!(one.find(&id("two")).await.unwrap(), Some(address));
    }

    #[tokio::test]
    async fn names_that_nobody_has_are_asked_for_at_a_rate() {
        let memory = Memory::new(4, Limits::default());
        let (one, two) = (node("one", &memory), node("two", &memory));
        two.listen_at("192.0.2.7:80".parse().unwrap());
        let id = |name: &str| NodeId::parse(name).unwrap();
        assert!(one.find(&id("two")).await.unwrap().is_some());
        let mut guesses = 0..100_000;
        while one.find(&id(&format!("n{}", guesses.next().unwrap()))).await.is_ok() {}
        assert!(one.find(&id("two")).await.unwrap().is_some(), "one that is known need not be asked");
    }

    #[test]
    fn an_address_that_means_all_is_made_one() {
        let given: SocketAddr = "127.0.0.1:80".parse().unwrap();
        assert_eq!(reachable(given), given);
        let made = reachable("0.0.0.0:80".parse().unwrap());
        assert!(!made.ip().is_unspecified() && made.port() == 80);
    }
}
