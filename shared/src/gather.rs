//! Those who ask the same at the same moment ask together: one question to Redis or Postgres for many.
//!
//! May use: tokio. Deliberately absent: what is asked, and waiting for others: whoever finds a way free asks at once. Only what
//! comes while all ways are taken waits, and goes out as one question. So nobody is slower alone, and thousands of clients that
//! come at once cost a few questions.

use std::{
    future::Future,
    sync::{Arc, Weak},
};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// How many questions are under way at once: the fewer, the more go out together; but one that hangs must not hold up all others.
const UNDER_WAY_MAX: usize = 2;

/// It was not answered; the text says why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unanswered(pub String);

/// One item of a question, and where its answer goes.
type Asked<Q, A> = (Q, oneshot::Sender<Result<A, Unanswered>>);
/// Answers each item, in their order; `None` for one that alone could not be answered.
type Ask<Q, A> = Box<dyn Fn(Vec<Q>) -> BoxFuture<'static, Result<Vec<Option<A>>, Unanswered>> + Send + Sync>;

/// Puts together what is asked at the same moment.
pub struct Gather<Q, A> {
    this: Weak<Self>,
    ask: Ask<Q, A>,
    together_max: usize,
    state: Mutex<State<Q, A>>,
}

struct State<Q, A> {
    waiting: Vec<Asked<Q, A>>,
    under_way: usize,
}

impl<Q: Send + 'static, A: Send + 'static> Gather<Q, A> {
    /// Asks `of` by `ask`, for at most `together_max` items at once. It has to answer each, in their order, with `None` for
    /// one that alone failed.
    pub fn new<C, F, E>(
        of: &C,
        together_max: usize,
        ask: impl Fn(C, Vec<Q>) -> F + Send + Sync + 'static,
    ) -> Arc<Self>
    where
        C: Clone + Send + Sync + 'static,
        F: Future<Output = Result<Vec<Option<A>>, E>> + Send + 'static,
        E: Into<Unanswered> + Send,
    {
        let of = of.clone();
        let ask: Ask<Q, A> = Box::new(move |items| {
            let answers = ask(of.clone(), items);
            Box::pin(async move { answers.await.map_err(Into::into) })
        });
        let state = Mutex::new(State { waiting: Vec::new(), under_way: 0 });
        Arc::new_cyclic(|this| Self { this: Weak::clone(this), ask, together_max, state })
    }

    /// The answer to one item.
    ///
    /// # Errors
    /// When the question failed in which it went out.
    pub async fn ask(&self, item: Q) -> Result<A, Unanswered> {
        let (answer, answered) = oneshot::channel();
        let is_free = {
            let mut state = self.state.lock();
            state.waiting.push((item, answer));
            let is_free = state.under_way < UNDER_WAY_MAX;
            state.under_way += usize::from(is_free);
            is_free
        };
        if is_free && let Some(this) = self.this.upgrade() {
            // Not done by who asks, who may go away meanwhile.
            tokio::spawn(async move { this.keep_asking().await });
        }
        answered.await.unwrap_or_else(|_| Err(Unanswered("nobody has answered".to_owned())))
    }

    /// Asks until nothing waits.
    async fn keep_asking(&self) {
        while let Some(asked) = self.next() {
            let (items, answers): (Vec<Q>, Vec<_>) = asked.into_iter().unzip();
            // By a task of its own: a panic is that question's alone.
            let found = match tokio::spawn((self.ask)(items)).await {
                Ok(found) => found,
                Err(error) => Err(Unanswered(error.to_string())),
            };
            match found {
                Ok(found) => answers.into_iter().zip(found).for_each(|(answer, found)| {
                    // Whoever asked may have gone.
                    let _ = answer.send(found.ok_or_else(|| Unanswered("no answer to this one".to_owned())));
                }),
                Err(error) => answers.into_iter().for_each(|answer| drop(answer.send(Err(error.clone())))),
            }
        }
    }

    /// What goes out next; `None` gives the way free.
    fn next(&self) -> Option<Vec<Asked<Q, A>>> {
        let mut state = self.state.lock();
        if state.waiting.is_empty() {
            // A burst is over: its room is not kept.
            state.waiting = Vec::new();
            state.under_way -= 1;
            return None;
        }
        let together = state.waiting.len().min(self.together_max);
        Some(state.waiting.drain(..together).collect())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;

    /// Doubles numbers, as soon as it may; notes how many went out together.
    fn doubling(gate: &Arc<Semaphore>, sizes: &Arc<Mutex<Vec<usize>>>) -> Arc<Gather<u32, u32>> {
        let of = (Arc::clone(gate), Arc::clone(sizes));
        Gather::new(&of, 5, |(gate, sizes), items: Vec<u32>| async move {
            sizes.lock().push(items.len());
            gate.acquire().await.map_err(|_| Unanswered("closed".to_owned()))?.forget();
            assert!(!items.contains(&13), "unlucky");
            Ok::<_, Unanswered>(items.into_iter().map(|item| (item != 7).then_some(2 * item)).collect())
        })
    }

    #[tokio::test]
    async fn what_is_asked_meanwhile_goes_out_together_and_each_gets_its_own_answer() {
        let (gate, sizes) = (Arc::new(Semaphore::new(0)), Arc::default());
        let gather = doubling(&gate, &sizes);
        let asked = join_all((0..12).map(|item| gather.ask(item)));
        let open = async {
            while sizes.lock().is_empty() {
                tokio::task::yield_now().await;
            }
            gate.add_permits(12);
        };
        let (answers, ()) = tokio::join!(asked, open);
        for (item, answer) in (0..).zip(answers) {
            assert_eq!(answer.ok(), (item != 7).then_some(2 * item));
        }
        let mut sizes = std::mem::take(&mut *sizes.lock());
        assert!(sizes.len() < 12, "{sizes:?}");
        sizes.sort_unstable();
        assert_eq!(sizes.iter().sum::<usize>(), 12);
        assert_eq!(gather.state.lock().under_way, 0);
    }

    #[tokio::test]
    async fn a_failure_is_that_questions_alone() {
        let (gate, sizes) = (Arc::new(Semaphore::new(9)), Arc::default());
        let gather = doubling(&gate, &sizes);
        assert!(gather.ask(13).await.is_err());
        assert_eq!(gather.ask(1).await, Ok(2));
        gate.close();
        assert_eq!(gather.ask(1).await, Err(Unanswered("closed".to_owned())));
    }
}
