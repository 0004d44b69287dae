//! WAV files in and out: 16 bits, one channel.

use std::path::Path;

use hound::{SampleFormat, WavReader, WavSpec, WavWriter};

/// Reads a WAV of 16 bits as its sample rate and one channel; several channels are averaged.
pub fn read(path: &Path) -> Result<(u32, Vec<i16>), String> {
    let fail = |error: hound::Error| format!("cannot read {}: {error}", path.display());
    let mut reader = WavReader::open(path).map_err(fail)?;
    let spec = reader.spec();
    if spec.sample_format != SampleFormat::Int || spec.bits_per_sample != 16 {
        return Err(format!("{} is not a WAV of 16 bit integers", path.display()));
    }
    let samples: Vec<i16> = reader.samples::<i16>().collect::<Result<_, _>>().map_err(fail)?;
    let channels = usize::from(spec.channels.max(1));
    let average = |frame: &[i16]| (frame.iter().map(|&sample| i32::from(sample)).sum::<i32>() / channels as i32) as i16;
    Ok((spec.sample_rate, samples.chunks_exact(channels).map(average).collect()))
}

/// Writes one channel of 16 bits.
pub fn write(path: &Path, rate_hz: u32, samples: &[i16]) -> Result<(), String> {
    let fail = |error: hound::Error| format!("cannot write {}: {error}", path.display());
    let spec = WavSpec { channels: 1, sample_rate: rate_hz, bits_per_sample: 16, sample_format: SampleFormat::Int };
    let mut writer = WavWriter::create(path, spec).map_err(fail)?;
    for &sample in samples {
        writer.write_sample(sample).map_err(fail)?;
    }
    writer.finalize().map_err(fail)
}
