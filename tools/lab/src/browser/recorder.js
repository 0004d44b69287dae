// Runs on the browser's audio thread: hands on what passes through, in blocks of a tenth of a second that bear the number of
// their first sample. Nothing is ever put out of it, so that it can stand beside the way to the loudspeaker.
"use strict";

const BLOCK_SAMPLES = sampleRate / 10;

class Recorder extends AudioWorkletProcessor {
    constructor() {
        super();
        this.begin();
    }

    begin() {
        this.block = new Int16Array(BLOCK_SAMPLES);
        this.filled = 0;
    }

    process([input]) {
        // A voice is mono; where it comes in two channels both have it. Before the first packet there is no channel.
        const channel = input[0] || new Float32Array(128);
        for (let index = 0; index < channel.length; index++) {
            if (this.filled === 0) {
                this.frame = currentFrame + index;
            }
            this.block[this.filled++] = Math.max(-32768, Math.min(32767, Math.round(channel[index] * 32768)));
            if (this.filled === BLOCK_SAMPLES) {
                this.port.postMessage({ frame: this.frame, samples: this.block.buffer }, [this.block.buffer]);
                this.begin();
            }
        }
        return true;
    }
}

registerProcessor("recorder", Recorder);
