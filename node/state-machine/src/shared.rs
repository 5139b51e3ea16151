//! A record that many hold and few change: whoever changes it gets a copy then, and not before. Each change looks whether
//! others hold it, so who makes many borrows the record once.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

#[derive(Debug, Clone, Default)]
pub(crate) struct Shared<M>(Arc<M>);

impl<M: Clone> Shared<M> {
    pub(crate) fn into_inner(self) -> M {
        Arc::unwrap_or_clone(self.0)
    }

    pub(crate) fn arc(&self) -> Arc<M> {
        Arc::clone(&self.0)
    }
}

impl<M> From<M> for Shared<M> {
    fn from(record: M) -> Self {
        Self(Arc::new(record))
    }
}

impl<M> From<Arc<M>> for Shared<M> {
    fn from(record: Arc<M>) -> Self {
        Self(record)
    }
}

impl<M> Deref for Shared<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.0
    }
}

impl<M: Clone> DerefMut for Shared<M> {
    fn deref_mut(&mut self) -> &mut M {
        Arc::make_mut(&mut self.0)
    }
}

/// One that nobody has changed is not looked at.
impl<M: PartialEq> PartialEq for Shared<M> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}
