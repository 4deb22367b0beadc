use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::store::{Lease, StoreError, TokenStore, is_free};
use crate::token::TokenSet;

/// One refresh token for several resources, each with access tokens of its own.
///
/// Where an access token is good for one resource only (RFC 8707), or for one scope or audience, an
/// account needs several at a time. Give each its own session, with a
/// [`TokenEndpoint`](crate::TokenEndpoint) that
/// [asks](crate::TokenEndpoint::with_parameter) for it, and with a store from here:
///
/// ```
/// use reqwest_refresh::{ClientAuth, MemoryStore, Session, SharedRefreshToken, TokenEndpoint};
///
/// # fn main() -> Result<(), reqwest_refresh::Error> {
/// let shared = SharedRefreshToken::new(MemoryStore::new());
/// let session = |resource: &str| {
///     TokenEndpoint::new("https://login.example.com/token", ClientAuth::none("app"))?
///         .with_parameter("resource", resource)
///         .map(Session::builder)?
///         .allow_origin(resource)
///         .store(shared.resource(resource))
///         .build()
/// };
/// let orders = session("https://orders.example.com")?;
/// let invoices = session("https://invoices.example.com")?;
/// # Ok(()) }
/// ```
///
/// Their refreshes come one after the other, each with the refresh token that the one before has
/// got. An access token is never given to another resource. A login or logout by one of the sessions
/// is found by the others at their next refresh.
///
/// What could not be saved is saved before another resource refreshes; as long as that fails, its
/// requests end with [`Store`](crate::ErrorKind::Store) when its access token is over. So
/// [`refresh_without_store`](crate::SessionBuilder::refresh_without_store) is not for these sessions,
/// nor is a store that cannot [`lock`](TokenStore::lock). A login goes to the session whose resource
/// its access token is for; each session has a login hook of its own.
///
/// What is kept in the store underneath is the newest refresh token with the access token that came
/// with it; the other access tokens live in memory, and cost a refresh each after a restart.
#[derive(Clone)]
pub struct SharedRefreshToken {
    store: Arc<dyn TokenStore>,
    known: Arc<Mutex<Known>>,
}

/// What this process has seen of one login.
#[derive(Default)]
struct Known {
    /// The last set that was written, which has the newest refresh token.
    newest: Option<TokenSet>,
    /// The newest set of each resource. Their refresh tokens do not count.
    sets: HashMap<String, TokenSet>,
    unsaved: Option<Unsaved>,
}

/// What a refresh has got, and nobody knows to be in the store.
#[derive(Clone)]
struct Unsaved {
    tokens: TokenSet,
    /// What was there before. Its refresh token is used up.
    over: TokenSet,
}

/// The member by which a stored set tells whose access token it has.
const RESOURCE: &str = "reqwest_refresh.resource";

impl Known {
    /// Whether the sets are of the same login as `stored`. If somebody else has refreshed, nobody can
    /// tell: it may be another user.
    fn is_of(&self, stored: &TokenSet) -> bool {
        self.newest.as_ref().is_some_and(|newest| {
            newest.refresh_token() == stored.refresh_token()
                && (stored.refresh_token().is_some() || newest.shares_login(stored))
        })
    }
}

impl SharedRefreshToken {
    /// Keeps the refresh token, and what came with it, in `store`.
    pub fn new(store: impl TokenStore) -> Self {
        Self { store: Arc::new(store), known: Arc::default() }
    }

    /// The store for the session of one resource. `name` is for this process and for those who share
    /// the store; the server is not told.
    pub fn resource(&self, name: &str) -> impl TokenStore + use<> {
        Resource { name: name.into(), shared: self.clone() }
    }
}

/// The view of one resource.
struct Resource {
    name: String,
    shared: SharedRefreshToken,
}

impl Resource {
    /// What `stored` is to this resource: its refresh token, and an access token only if it is ours.
    fn view(&self, stored: TokenSet) -> TokenSet {
        if self.owns(&stored) {
            let mut members = stored.members().clone();
            members.remove(RESOURCE);
            return stored.with_members(members);
        }
        let known = &*self.shared.known.lock();
        let own = known.sets.get(&self.name).filter(|_| known.is_of(&stored)).cloned();
        own.unwrap_or_else(over).with_refresh_token_of(&stored)
    }

    fn owns(&self, stored: &TokenSet) -> bool {
        let owner = stored.members().get(RESOURCE);
        owner.and_then(|owner| owner.as_str()) == Some(&self.name)
    }

    /// What is `stored`, once the pair of another resource is saved that seemed not to be: what is in its
    /// place is used up. As long as that fails nobody else has a refresh token that could be sent.
    async fn caught_up(&self, stored: Option<TokenSet>) -> Result<Option<TokenSet>, StoreError> {
        let unsaved = self.shared.known.lock().unsaved.clone();
        let Some((stored, unsaved)) = stored.clone().zip(unsaved) else { return Ok(stored) };
        let is_used_up = stored.refresh_token() == unsaved.over.refresh_token();
        if !is_used_up || self.owns(&unsaved.tokens) {
            return Ok(Some(stored));
        }
        self.shared.store.replace(Some(&stored), &unsaved.tokens).await?;
        self.shared.store.load().await
    }

    /// Notes that `tokens` have come out of `before`, until they are saved.
    fn note_unsaved(&self, before: Option<&TokenSet>, tokens: &TokenSet) {
        let is_rotated = |over: &&TokenSet| over.refresh_token() != tokens.refresh_token();
        if let Some(over) = before.filter(is_rotated).filter(|_| !tokens.is_login()) {
            let unsaved = Unsaved { tokens: self.marked(tokens), over: over.clone() };
            self.shared.known.lock().unsaved = Some(unsaved);
        }
    }

    /// `tokens`, marked as this resource's.
    fn marked(&self, tokens: &TokenSet) -> TokenSet {
        let mut members = tokens.members().clone();
        members.insert(RESOURCE.to_owned(), self.name.clone().into());
        tokens.clone().with_members(members)
    }

    /// Takes in what was written `over` that.
    fn keep(&self, tokens: &TokenSet, over: Option<&TokenSet>) {
        let known = &mut *self.shared.known.lock();
        let is_refreshed = !tokens.is_login()
            && over.is_some_and(|over| known.is_of(over) && tokens.shares_login(over));
        if !is_refreshed {
            *known = Known::default();
        }
        known.sets.insert(self.name.clone(), tokens.clone());
        known.newest = Some(tokens.clone());
        known.unsaved = None;
    }
}

/// No access token that could be sent.
fn over() -> TokenSet {
    TokenSet::new("none").with_expires_at(SystemTime::UNIX_EPOCH)
}

#[async_trait]
impl TokenStore for Resource {
    async fn load(&self) -> Result<Option<TokenSet>, StoreError> {
        let stored = self.caught_up(self.shared.store.load().await?).await?;
        Ok(stored.map(|stored| self.view(stored)))
    }

    async fn save(&self, tokens: &TokenSet) -> Result<(), StoreError> {
        self.shared.store.save(&self.marked(tokens)).await?;
        self.keep(tokens, None);
        Ok(())
    }

    async fn clear(&self) -> Result<(), StoreError> {
        *self.shared.known.lock() = Known::default();
        self.shared.store.clear().await
    }

    async fn lock(&self) -> Result<Lease, StoreError> {
        self.shared.store.lock().await
    }

    async fn replace(
        &self,
        before: Option<&TokenSet>,
        tokens: &TokenSet,
    ) -> Result<bool, StoreError> {
        self.note_unsaved(before, tokens);
        // What is compared is what the caller has seen; what is replaced is what is there.
        let stored = self.shared.store.load().await?;
        let seen = stored.clone().map(|stored| self.view(stored));
        if !is_free(seen.as_ref(), before, tokens) {
            return Ok(false);
        }
        let marked = self.marked(tokens);
        let is_replaced = self.shared.store.replace(stored.as_ref(), &marked).await?;
        if is_replaced {
            self.keep(tokens, stored.as_ref());
        }
        Ok(is_replaced)
    }
}
