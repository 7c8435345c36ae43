//! Runs tasks in an order that a seed decides.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use super::Random;

pub struct Flag(AtomicBool);

impl Flag {
    pub fn new() -> Arc<Self> {
        Arc::new(Flag(AtomicBool::new(true)))
    }

    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    flag: Arc<Flag>,
}

#[derive(Default)]
pub struct Executor {
    tasks: RefCell<Vec<Task>>,
}

impl Executor {
    pub fn new() -> Rc<Self> {
        Rc::default()
    }

    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        self.tasks.borrow_mut().push(Task {
            future: Box::pin(future),
            flag: Flag::new(),
        });
    }

    /// How many tasks have not ended.
    pub fn tasks(&self) -> usize {
        self.tasks.borrow().len()
    }

    /// Polls one task that is woken; tells whether there was one.
    pub fn step(&self, random: &mut Random) -> bool {
        let mut tasks = self.tasks.borrow_mut();
        let count = tasks.len();
        let first = if count == 0 { 0 } else { random.below(count) };
        let Some(index) = (0..count)
            .map(|i| (first + i) % count)
            .find(|index| tasks[*index].flag.take())
        else {
            return false;
        };
        let mut task = tasks.swap_remove(index);
        drop(tasks);
        let waker = Waker::from(task.flag.clone());
        if task.future.as_mut().poll(&mut Context::from_waker(&waker)) == Poll::Pending {
            self.tasks.borrow_mut().push(task);
        }
        true
    }
}
