//! A hub, an agent that was claimed, and the name by which its server is reached.

use std::time::Duration;

use http::Method;
use serde_json::json;
use url::Url;

use crate::agent::Agent;
use crate::api::Api;
use crate::database::{Database, Engine};
use crate::hub::Hub;
use crate::until;
use crate::viewer::{Client, Protocol};

/// All of it, running.
#[derive(Debug)]
pub struct World {
    pub agent: Agent,
    pub hub: Hub,
    /// The account that claimed the server.
    pub owner: Api,
    pub server: Server,
}

/// A claimed server.
#[derive(Debug, Clone)]
pub struct Server {
    pub id: String,
    /// `https://<label>.hub.localhost:<port>`, without a slash at the end.
    pub url: String,
    pub host: String,
}

impl World {
    /// A hub on a fresh database and an agent before `origin`, claimed by `owner` and connected.
    pub async fn start(engine: Engine, origin: &str) -> Self {
        Self::on(Hub::start(Database::fresh(engine), &[]).await, origin).await
    }

    /// The same at a hub that is there.
    pub async fn on(hub: Hub, origin: &str) -> Self {
        Self::with_agent(hub, origin, &[]).await
    }

    /// The same with more arguments for the agent.
    pub async fn with_agent(hub: Hub, origin: &str, extra: &[&str]) -> Self {
        let agent = Agent::start_with(&hub.ready().public_url, origin, extra);
        Self::of(hub, agent).await
    }

    /// The same with an agent that is there, to be claimed.
    pub async fn of(hub: Hub, mut agent: Agent) -> Self {
        let owner = hub.api().register("owner").await;
        let server = claim(&owner, &mut agent).await;
        Self { agent, hub, owner, server }
    }

    /// A viewer ticket of the owner's, as programs hold it.
    pub async fn ticket(&self) -> String {
        ticket(&self.owner, &self.server.id).await
    }

    /// Opens the server's name to everybody, and waits until it is.
    pub async fn open(&self) {
        let path = format!("/api/v1/me/servers/{}/names/{}", self.server.id, self.server.host);
        self.owner.call(Method::PUT, &path, Some(&json!({ "access": "open" }))).await.expect(200);
        // The agent must hear it from the hub before it believes the edge: a moment.
        until("the name is open", Duration::from_secs(20), || async {
            let mut viewer = self.viewer(Protocol::H1).await;
            let status = viewer.get("/", &[]).await.status();
            (status != 401 && status != 403 && status != 502).then_some(())
        })
        .await;
    }

    /// A connection to the server's name.
    pub async fn viewer(&self, protocol: Protocol) -> Client {
        Client::connect(&self.hub, &self.server.host, protocol).await
    }
}

/// Claims an agent for a user and waits until its server can be reached.
pub async fn claim(user: &Api, agent: &mut Agent) -> Server {
    let id = user.claim(&agent.claim_code().await).await;
    agent.connected().await;
    let path = format!("/api/v1/me/servers/{id}/access-info");
    let url = until("the hub tells the server's URL", Duration::from_secs(20), || async {
        let info = user.get(&path).await.expect(200);
        info["relay_url"].as_str().map(str::to_owned)
    })
    .await;
    let host = Url::parse(&url).unwrap().host_str().unwrap().to_owned();
    Server { id, url: url.trim_end_matches('/').to_owned(), host }
}

/// A viewer ticket of a user's.
pub async fn ticket(user: &Api, server: &str) -> String {
    let made = user.post(&format!("/api/v1/me/servers/{server}/viewer-ticket"), &json!({})).await.expect(201);
    made["ticket"].as_str().unwrap().to_owned()
}
