// The way in: record, drop or choose a clip. Runs as `js_on_load` of a gr.HTML: `element`, `upload` and `trigger` are
// given by Gradio. Whatever it is, the server looks at the content: nothing is refused by its name here.
const stage = element.querySelector(".mlf-stage");
const said = element.querySelector("[role=status]");
const recorder = element.querySelector("[data-do=record]");
const picker = element.querySelector("input[type=file]");
const box = element.querySelector(".mlf-face");
const limits = element.querySelector("[data-seconds]").dataset;
const clips = JSON.parse(element.querySelector("[data-clips]").dataset.clips);
let recording = null;
let shown = 0; // numbers what is shown: what arrives late for an older clip is dropped

function show(kind, source, mirrored) {
	for (const old of stage.querySelectorAll("video, audio")) old.remove();
	box.hidden = true;
	if (!source) return null;
	const player = document.createElement(kind);
	player.controls = !mirrored;
	player.setAttribute("aria-label", mirrored ? "Your camera" : "The clip");
	player.playsInline = true;
	player.classList.toggle("mirrored", Boolean(mirrored));
	if (typeof source === "string") player.src = source;
	else {
		player.srcObject = source;
		player.muted = true;
		player.play();
	}
	stage.prepend(player);
	return player;
}

function showFile(file) {
	const player = show("video", URL.createObjectURL(file));
	player.addEventListener("error", () => {
		if (!player.isConnected) return;
		show("video", null);
		said.textContent = `${file.name}: your browser cannot play this file; it is read all the same.`;
	});
}

function showExample(name) {
	const still = document.querySelector(`#examples [data-name="${name}"] img`);
	const player = show("video", clips[name]);
	if (still) player.poster = still.src;
}

async function give(file) {
	const number = ++shown;
	if (file.size > limits.megabytes * 1e6) {
		said.textContent = `${file.name} has ${Math.round(file.size / 1e6)} MB; at most ${limits.megabytes} MB are taken.`;
		return;
	}
	showFile(file);
	said.textContent = `Sending ${file.name} …`;
	window.dispatchEvent(new Event("mlf-given"));
	trigger("sending", {});
	try {
		const { path } = await upload(file);
		if (number !== shown) return;
		if (said.textContent.startsWith("Sending")) said.textContent = file.name;
		trigger("clip", { path });
	} catch (error) {
		said.textContent = `${file.name} could not be sent (${error && error.message}).`;
		trigger("clip", { path: "" }); // so that the page does not wait for it
	}
}

const WHY = {
	NotAllowedError: "The browser blocks camera and microphone: allow them (the sign beside the address), or choose a file.",
	NotFoundError: "There is no camera and no microphone: choose a file.",
	NotReadableError: "Another program uses the camera or the microphone: close it, or choose a file.",
};

async function start() {
	if (!navigator.mediaDevices) {
		said.textContent = "The browser gives camera and microphone to pages with https only: choose a file.";
		return;
	}
	recorder.disabled = true;
	said.textContent = "Asking for camera and microphone …";
	const { stream, why } = await openCamera();
	recorder.disabled = false;
	if (!stream) {
		said.textContent = WHY[why.name] || `No camera and no microphone could be opened (${why.message}).`;
		return;
	}
	shown += 1;
	const missing = !stream.getVideoTracks().length ? "No camera: the face is left out. "
		: !stream.getAudioTracks().length ? "No microphone: voice and words are left out. " : "";
	show(stream.getVideoTracks().length ? "video" : "audio", stream, true);
	const parts = [];
	const made = new MediaRecorder(stream);
	const began = performance.now();
	made.ondataavailable = (event) => parts.push(event.data);
	made.onstop = () => {
		for (const track of stream.getTracks()) track.stop();
		const { timer, unwanted } = recording;
		clearInterval(timer);
		recording = null;
		recorder.textContent = "Record";
		recorder.setAttribute("aria-pressed", "false");
		if (unwanted) return;
		const type = made.mimeType.split(";")[0];
		give(new File(parts, `recording.${type.split("/")[1] || "webm"}`, { type }));
	};
	made.start();
	recording = {
		made,
		timer: setInterval(() => {
			const seconds = (performance.now() - began) / 1000;
			said.textContent = `${missing}Recording, ${seconds.toFixed(0)} s. Say a sentence or two, then stop.`;
			if (seconds >= limits.seconds - 1) made.stop();
		}, 250),
	};
	recorder.textContent = "Stop";
	recorder.setAttribute("aria-pressed", "true");
}

recorder.addEventListener("click", () => (recording ? recording.made.stop() : start()));
element.querySelector("[data-do=choose]").addEventListener("click", () => picker.click());
picker.addEventListener("change", () => {
	if (picker.files.length) give(picker.files[0]);
	picker.value = "";
});
for (const kind of ["dragenter", "dragover", "dragleave", "drop"])
	element.addEventListener(kind, (event) => {
		event.preventDefault();
		stage.classList.toggle("over", kind === "dragenter" || kind === "dragover");
		if (kind === "drop" && event.dataTransfer.files.length) give(event.dataTransfer.files[0]);
	});
window.addEventListener("mlf-example", (event) => {
	shown += 1;
	if (recording) {
		recording.unwanted = true;
		recording.made.stop();
	}
	showExample(event.detail.name);
	said.textContent = event.detail.title;
});
if (limits.first) showExample(limits.first);

// The box around the face that was read, in step with the clip.
const follow = () => {
	const player = stage.querySelector("video");
	const told = document.querySelector("#answer [data-faces]");
	const faces = player && player.videoWidth && told ? JSON.parse(told.dataset.faces) : [];
	const now = player ? player.currentTime : 0;
	const near = faces.reduce((best, face) => (!best || Math.abs(face[0] - now) < Math.abs(best[0] - now) ? face : best), null);
	if (near && Math.abs(near[0] - now) < 0.6) {
		const scale = Math.min(player.clientWidth / player.videoWidth, player.clientHeight / player.videoHeight);
		const [width, height] = [player.videoWidth * scale, player.videoHeight * scale];
		const left = player.offsetLeft + (player.clientWidth - width) / 2 + near[1] * height + width / 2;
		const top = player.offsetTop + (player.clientHeight - height) / 2 + near[2] * height + height / 2;
		const side = near[3] * height;
		Object.assign(box.style, { left: `${left - side / 2}px`, top: `${top - side / 2}px`, width: `${side}px`, height: `${side}px` });
		box.hidden = false;
	} else box.hidden = true;
};
setInterval(follow, 100);
