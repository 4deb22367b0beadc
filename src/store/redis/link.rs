//! A connection to Redis, for as long as somebody has something to ask.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisError};

use crate::store::redis::error::RedisStoreError;

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

    pub(super) async fn ask<T: FromRedisValue>(
        &mut self,
        command: &Cmd,
    ) -> Result<T, RedisStoreError> {
        let answer = command.query_async(self.connection().await?).await;
        // A peer that went away without a word shows up as a timeout.
        Ok(answer.inspect_err(|_| self.connection = None)?)
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

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);
