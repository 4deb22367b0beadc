//! A connection to Redis, for as long as somebody has something to ask.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, RedisError};

/// Connects when it is first asked, and anew after a connection has failed. Its clones share
/// the connection that there is.
#[derive(Clone)]
pub(super) struct Link {
    client: Client,
    connection: Option<MultiplexedConnection>,
}

impl Link {
    pub(super) const fn new(client: Client) -> Self {
        Self { client, connection: None }
    }

    pub(super) async fn ask<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, Failure> {
        let answer = command.query_async(self.connection().await?).await;
        Ok(answer.inspect_err(|error: &RedisError| {
            // A peer that went away without a word shows up as a timeout.
            if error.is_io_error() || error.is_unrecoverable_error() {
                self.connection = None;
            }
        })?)
    }

    async fn connection(&mut self) -> Result<&mut MultiplexedConnection, RedisError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(CONNECT_TIMEOUT))
                    .set_response_timeout(Some(RESPONSE_TIMEOUT));
                self.client.get_multiplexed_async_connection_with_config(&config).await?
            }
        };
        Ok(self.connection.insert(connection))
    }
}

/// What went wrong, without what Redis says about it: it may quote the command, tokens included.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("Redis refuses the user name or the password")]
    Credentials,
    #[error("Redis answers with the error {0}")]
    Refused(String),
    #[error("Redis cannot be reached: {0}")]
    Unreachable(String),
    #[error("Redis answers something unexpected")]
    Unexpected,
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        match (error.kind(), error.code()) {
            (ErrorKind::AuthenticationFailed, _) => Self::Credentials,
            (ErrorKind::Io, _) => Self::Unreachable(error.to_string()),
            (_, Some(code)) if is_code(code) => Self::Refused(code.to_owned()),
            _ => Self::Unexpected,
        }
    }
}

/// Whether this is what Redis begins its errors with, such as `READONLY`, and nothing else.
fn is_code(code: &str) -> bool {
    code.len() <= 20 && code.bytes().all(|byte| byte.is_ascii_uppercase())
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);
