// The live panel in the browser: camera and microphone -> packets to the server, until stopped.
// Runs as `js_on_load` of a gr.HTML: `element`, `server` and `trigger` are given by Gradio.
const video = element.querySelector("video");
const button = element.querySelector("button");
const said = element.querySelector("[role=status]");
const FPS = Number(element.querySelector("[data-fps]").dataset.fps);
const PACKET_MS = 400; // how often a packet is sent, if the one before has been answered
const RATE = 16000;
const LARGEST_SIDE = 320;
let live = null;

function base64(bytes) {
	let text = "";
	for (let at = 0; at < bytes.length; at += 8192)
		text += String.fromCharCode.apply(null, bytes.subarray(at, at + 8192));
	return btoa(text);
}

function show(text, running) {
	said.textContent = text;
	button.textContent = running ? "Stop" : "Start camera and microphone";
	button.setAttribute("aria-pressed", running ? "true" : "false");
}

// Sound comes in small blocks from the audio thread; at another rate than ours it is resampled by the context.
const WORKLET = `registerProcessor("tap", class extends AudioWorkletProcessor {
	process(inputs) { if (inputs[0][0]) this.port.postMessage(inputs[0][0].slice()); return true; }
});`;

async function start() {
	if (!navigator.mediaDevices) {
		show("The browser gives camera and microphone to pages with https only.", false);
		return;
	}
	button.disabled = true;
	show("Asking for camera and microphone", false);
	const { stream, why } = await openCamera();
	button.disabled = false;
	if (!stream) {
		const blocked = why && why.name === "NotAllowedError";
		show(blocked ? "The browser blocks camera and microphone: allow them (the sign beside the address)."
			: "No camera and no microphone could be opened (" + (why && why.message) + ").", false);
		return;
	}
	const numbers = crypto.getRandomValues(new Uint32Array(4));
	const session = { id: Array.from(numbers, (n) => n.toString(16)).join("-"), frames: [], sound: [], samples: 0 };
	live = session;
	session.stream = stream;
	session.dropped = 0;
	session.began = performance.now();
	const seconds = () => (performance.now() - session.began) / 1000;

	if (stream.getVideoTracks().length) {
		video.srcObject = stream;
		await video.play();
		const canvas = document.createElement("canvas");
		session.timer = setInterval(() => {
			if (!video.videoWidth) return;
			if (session.frames.length >= FPS) { // the server is busy: leave pictures out rather than fall behind
				session.dropped += 1;
				return;
			}
			const scale = Math.min(1, LARGEST_SIDE / Math.max(video.videoWidth, video.videoHeight));
			canvas.width = Math.round(video.videoWidth * scale);
			canvas.height = Math.round(video.videoHeight * scale);
			canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
			session.frames.push([seconds(), canvas.toDataURL("image/jpeg", 0.75).split(",")[1]]);
		}, 1000 / FPS);
	}
	if (stream.getAudioTracks().length) {
		session.audio = new AudioContext({ sampleRate: RATE });
		const module = URL.createObjectURL(new Blob([WORKLET], { type: "text/javascript" }));
		await session.audio.audioWorklet.addModule(module);
		URL.revokeObjectURL(module);
		const tap = new AudioWorkletNode(session.audio, "tap");
		session.audio.createMediaStreamSource(stream).connect(tap);
		tap.port.onmessage = (event) => {
			session.sound.push(event.data);
			session.samples += event.data.length;
			session.soundEnd = seconds();
			while (session.samples > 6 * RATE) session.samples -= session.sound.shift().length;
		};
	}
	session.sender = setInterval(send, PACKET_MS, session);
	const missing = !stream.getVideoTracks().length ? " No camera: the face is left out."
		: !stream.getAudioTracks().length ? " No microphone: the voice is left out." : "";
	show("Live." + missing, true);
	trigger("start", { id: session.id });
}

async function send(session) {
	if (session.sending || live !== session) return;
	session.sending = true;
	const pcm = new Int16Array(session.samples);
	let at = 0;
	for (const block of session.sound)
		for (const value of block) pcm[at++] = Math.max(-1, Math.min(1, value)) * 32767;
	const packet = {
		id: session.id,
		frames: session.frames,
		sound: base64(new Uint8Array(pcm.buffer)),
		sound_end: session.soundEnd || 0,
		dropped: session.dropped,
	};
	session.frames = [];
	session.sound = [];
	session.samples = 0;
	session.dropped = 0;
	try {
		const told = await server.push_live(packet);
		if (told && told.go === false) stop(told.why || "Stopped by the server.");
	} catch (error) {
		stop("The server does not answer.");
	}
	session.sending = false;
}

function stop(why) {
	const session = live;
	live = null;
	if (!session) return;
	clearInterval(session.timer);
	clearInterval(session.sender);
	for (const track of session.stream.getTracks()) track.stop();
	if (session.audio) session.audio.close();
	video.srcObject = null;
	show(why, false);
	server.push_live({ id: session.id, stop: true }).catch(() => {});
}

button.addEventListener("click", () => (live ? stop("Stopped.") : start()));
window.addEventListener("pagehide", () => stop("Stopped."));
document.addEventListener("visibilitychange", () => {
	if (document.hidden) stop("Stopped, as the page was left.");
});
// Another tab of the page was opened: this one is drawn no more.
new IntersectionObserver(() => {
	if (live && !button.offsetParent) stop("Stopped, as the page was left.");
}).observe(button);
