//! What happens when nothing else does.

use std::time::Instant;

use super::stream::Nature;
use super::{Failure, Stage, Tunnel, Violation};

impl Tunnel {
    /// When [`on_time`](Self::on_time) is to be called.
    pub fn deadline(&self) -> Option<Instant> {
        let draining = match self.stage {
            Stage::Hello { until, .. } | Stage::Verifying { until } => return Some(until),
            Stage::Closed => return None,
            Stage::Open | Stage::Draining { told: true, .. } => None,
            Stage::Draining { until, told: false } => Some(until),
        };
        let silent = (!self.paused()).then(|| self.heard + self.config.silence);
        let ping = (!self.ping_due).then(|| self.spoke + self.config.ping);
        let patience = self.fairness.deadline(&self.config);
        let others = [draining, silent, ping, patience, self.channels_at];
        others.into_iter().flatten().chain([self.heartbeat_at]).min()
    }

    /// A time has come.
    pub fn on_time(&mut self, now: Instant) -> Result<(), Violation> {
        match self.stage {
            Stage::Hello { until, .. } | Stage::Verifying { until } if now >= until => return Err(Violation::NoHello),
            Stage::Hello { .. } | Stage::Verifying { .. } | Stage::Closed => return Ok(()),
            Stage::Draining { until, .. } if now >= until => self.tell_drained(),
            Stage::Open | Stage::Draining { .. } => {}
        }
        // A tunnel that we don't read is not silent.
        if !self.paused() && now >= self.heard + self.config.silence {
            return Err(Violation::Silent);
        }
        if now >= self.heartbeat_at {
            self.heartbeat_due = true;
            self.heartbeat_at = now + self.config.heartbeat;
        }
        self.ping_due |= now >= self.spoke + self.config.ping;
        self.judge(now);
        if self.channels_at.is_some_and(|at| now >= at) {
            self.end_idle_channels(now);
        }
        Ok(())
    }

    fn end_idle_channels(&mut self, now: Instant) {
        let idle = self.config.channel_idle;
        let mut ending = Vec::new();
        self.channels_at = None;
        for (id, stream) in &self.streams {
            if let (Nature::Channel { active, .. }, None) = (&stream.nature, stream.answer) {
                let until = *active + idle;
                if now >= until {
                    ending.push(*id);
                } else {
                    self.channels_at = Some(self.channels_at.map_or(until, |at| at.min(until)));
                }
            }
        }
        for id in ending {
            self.end(id, Err(Failure::Idle), true, now);
        }
    }
}
