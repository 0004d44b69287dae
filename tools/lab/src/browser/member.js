// A member of a room: as much of Galene's protocol as it takes to publish a microphone and to hear the others. Where the room
// is, under which name to enter it and whether the browser may work on the microphone's sound stands in the page's address;
// what happens, what is heard and what the browser counts goes to the laboratory over a WebSocket of its own.
"use strict";

const wanted = new URLSearchParams(location.search);
const myId = crypto.randomUUID();
const STATS_EVERY_MS = 500;

const lab = new WebSocket(`ws://${location.host}/lab`);
const tell = (kind, fields) => lab.send(JSON.stringify({ kind, ...fields }));
const fail = (why) => tell("failed", { why: String(why) });
window.addEventListener("error", (event) => fail(event.message));
window.addEventListener("unhandledrejection", (event) => fail(event.reason));

// Peer connections by stream: mine, and one for each stream of others.
const streams = new Map();
// Candidates that came before the description that they belong to, by stream.
const early = new Map();
let configuration = {};
let microphone = null;
let audio = null;
let room = null;

const say = (message) => room.send(JSON.stringify(message));

function openConnection(id, source) {
    const connection = new RTCPeerConnection(configuration);
    connection.onicecandidate = ({ candidate }) => {
        if (candidate) {
            say({ type: "ice", id, candidate });
        }
    };
    connection.onconnectionstatechange = () => tell("connection", { source, state: connection.connectionState });
    const stream = { connection, source };
    streams.set(id, stream);
    return stream;
}

function closeConnection(id) {
    streams.get(id)?.connection.close();
    streams.delete(id);
    early.delete(id);
}

async function addCandidate(id, candidate) {
    const connection = streams.get(id)?.connection;
    if (connection?.remoteDescription) {
        await connection.addIceCandidate(candidate);
    } else {
        early.set(id, [...(early.get(id) || []), candidate]);
    }
}

async function describe(id, description) {
    await streams.get(id).connection.setRemoteDescription(description);
    for (const candidate of early.get(id) || []) {
        await streams.get(id).connection.addIceCandidate(candidate);
    }
    early.delete(id);
}

async function publish() {
    const processing = wanted.get("processing") === "on";
    const constraints = processing
        ? true
        : { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    microphone = await navigator.mediaDevices.getUserMedia({ audio: constraints });
    const [track] = microphone.getAudioTracks();
    const { echoCancellation, noiseSuppression, autoGainControl } = track.getSettings();
    tell("microphone", { processed: [echoCancellation, noiseSuppression, autoGainControl].some(Boolean) });
    const { connection } = openConnection(myId, "");
    connection.addTransceiver(track, { direction: "sendonly", streams: [microphone] });
    await offer({});
}

async function offer(options) {
    const { connection } = streams.get(myId);
    await connection.setLocalDescription(await connection.createOffer(options));
    say({ type: "offer", id: myId, label: "camera", sdp: connection.localDescription.sdp });
}

async function answer({ id, username, sdp }) {
    if (!streams.has(id)) {
        const { connection } = openConnection(id, username);
        connection.ontrack = ({ streams: [heard], track }) => listen(username, heard || new MediaStream([track]));
    }
    await describe(id, { type: "offer", sdp });
    const { connection } = streams.get(id);
    await connection.setLocalDescription(await connection.createAnswer());
    say({ type: "answer", id, sdp: connection.localDescription.sdp });
}

function listen(source, stream) {
    // Chromium decodes what an element plays, and lets others listen along.
    const element = new Audio();
    element.srcObject = stream;
    element.play().catch(fail);
    record(source, stream);
}

function record(source, stream) {
    const recorder = new AudioWorkletNode(audio, "recorder", { numberOfInputs: 1, numberOfOutputs: 1 });
    recorder.port.onmessage = ({ data: { frame, samples } }) => {
        tell("sound", { source, frame, samples: btoa(String.fromCharCode(...new Uint8Array(samples))) });
    };
    audio.createMediaStreamSource(stream).connect(recorder).connect(audio.destination);
}

const handlers = {
    handshake: () => {
        say({ type: "join", kind: "join", group: wanted.get("group"), username: wanted.get("username"), password: "" });
    },
    joined: async ({ kind, value, rtcConfiguration }) => {
        if (kind === "fail" || kind === "redirect") {
            return fail(`not let in: ${value}`);
        }
        configuration = rtcConfiguration || configuration;
        if (kind === "join") {
            tell("joined", {});
            say({ type: "request", request: { "": ["audio"] } });
            await publish();
        }
    },
    offer: answer,
    answer: ({ id, sdp }) => describe(id, { type: "answer", sdp }),
    renegotiate: () => offer({ iceRestart: true }),
    ice: ({ id, candidate }) => addCandidate(id, candidate),
    close: ({ id }) => closeConnection(id),
    abort: ({ id }) => {
        closeConnection(id);
        say({ type: "close", id });
        fail("the room refuses the microphone");
    },
    usermessage: ({ kind, value }) => {
        if (kind === "error" || kind === "kicked") {
            fail(value);
        }
    },
    ping: () => say({ type: "pong" }),
};

function enter() {
    room = new WebSocket(wanted.get("endpoint"));
    room.onopen = () => say({ type: "handshake", version: ["2"], id: myId });
    room.onclose = ({ code, reason }) => fail(`the room has closed the connection: ${code} ${reason}`);
    // One after the other: a description takes its time, and what follows it builds on it.
    let before = Promise.resolve();
    room.onmessage = ({ data }) => {
        const message = JSON.parse(data);
        before = before.then(() => handlers[message.type]?.(message)).catch(fail);
    };
}

async function count() {
    const counts = { at_ms: performance.now(), sent: null, heard: [] };
    for (const { connection, source } of streams.values()) {
        for (const report of (await connection.getStats()).values()) {
            if (report.type === "outbound-rtp") {
                counts.sent = { packets: report.packetsSent, bytes: report.bytesSent };
            } else if (report.type === "inbound-rtp") {
                counts.heard.push({
                    source,
                    packets: report.packetsReceived,
                    samples: report.totalSamplesReceived,
                    concealed: report.concealedSamples,
                    silent_concealed: report.silentConcealedSamples,
                });
            }
        }
    }
    tell("counts", counts);
}

lab.onmessage = ({ data }) => {
    if (data === "mute") {
        microphone.getAudioTracks()[0].enabled = false;
    }
};

lab.onopen = async () => {
    audio = new AudioContext({ sampleRate: 48000 });
    await audio.audioWorklet.addModule("/recorder.js");
    setInterval(() => count().catch(fail), STATS_EVERY_MS);
    enter();
};
