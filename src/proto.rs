//! The protocol without I/O: bytes, time and chance come in as arguments, verdicts go out.
//!
//! ```text
//!             stored set?        window opens         end, or rejected
//!   (unread) ────────────▶ fresh ───────────▶ stale ───────────────▶ expired
//!       │                    ▲                  │ refreshed behind     │ requests
//!       │ nothing stored     │                  ▼ the request          ▼ wait
//!       ▼                    └───────────────── flight ◀───────────────┘
//!   no token ──────────────────────────────────▶ │ │
//!                            ▲   transient:      │ │ terminal: the refresh token
//!                            │   cool-down ◀─────┘ │ is dead, or there is none
//!                            │                     ▼
//!                            └──── login hook ◀── dead ──▶ every request fails with
//!                                  or set_tokens           LoginRequired, no traffic
//! ```

#[cfg(feature = "jwt-auth")]
pub(crate) mod assertion;
pub(crate) mod challenge;
pub(crate) mod client_auth;
pub(crate) mod credential;
pub(crate) mod grant;
#[cfg(feature = "jwt-auth")]
pub(crate) mod jws;
pub(crate) mod jwt;
pub(crate) mod metadata;
pub(crate) mod origin;
pub(crate) mod policy;
pub(crate) mod provider;
pub(crate) mod redact;
pub(crate) mod state;
