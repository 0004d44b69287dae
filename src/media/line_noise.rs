//! Noise at the level that a telephone's comfort noise packets name (RFC 3389).
//!
//! Owns: the level, white noise of it. Does not own: when it is heard (`caller`). The packet's spectrum is left unused, as
//! §3.1 allows: what is loud enough to be heard at all is rare, and so are senders of more than the level.

/// Below this not even the last bit moves.
const SOFTEST_DBOV: u8 = 90;

/// One telephone's silence, as it describes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct LineNoise {
    level_dbov: u8,
    /// Spread evenly between minus and plus this.
    amplitude: f32,
    random: u32,
}

impl LineNoise {
    /// By a packet's payload, whose first byte is the level below that of the loudest square wave in dB (RFC 3389 §3.1).
    pub(super) fn of_packet(payload: &[u8]) -> Option<Self> {
        let level_dbov = payload.first()? & 0x7f;
        let rms = 32_768.0 * 10f32.powf(-f32::from(level_dbov) / 20.0);
        let amplitude = if level_dbov > SOFTEST_DBOV { 0.0 } else { rms * 3f32.sqrt() };
        // Any odd number: the noise need not be unpredictable.
        Some(Self { level_dbov, amplitude, random: 0x9e37_79b9 })
    }

    /// Below the loudest square wave, in dB.
    pub(super) const fn level_dbov(&self) -> u8 {
        self.level_dbov
    }

    /// Fills `pcm` with it.
    pub(super) fn fill(&mut self, pcm: &mut [i16]) {
        for sample in pcm {
            self.random = self.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let white = self.random.cast_signed() as f32 / 2_147_483_648.0;
            *sample = (white * self.amplitude).round() as i16; // saturates
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::vad::level_dbfs;

    #[test]
    fn the_noise_has_the_level_that_the_packet_names() {
        for level in [20u8, 40, 50, 60, 0x80 | 45] {
            let mut pcm = [0; 8000];
            LineNoise::of_packet(&[level, 1, 2]).unwrap().fill(&mut pcm);
            let measured = level_dbfs(pcm.iter().map(|&sample| i64::from(sample).pow(2) as u64).sum(), pcm.len());
            assert!((measured + f32::from(level & 0x7f)).abs() < 0.3, "{level}: {measured}");
        }
        let mut pcm = [1; 10];
        LineNoise::of_packet(&[127]).unwrap().fill(&mut pcm);
        assert_eq!(pcm, [0; 10]);
        assert!(LineNoise::of_packet(&[]).is_none());
    }
}
