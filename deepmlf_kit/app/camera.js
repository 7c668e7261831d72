// Stands before clip.js and live.js, each of which runs in a function of its own.
// Opens camera and microphone, or the one of them that there is; `stream` is null where neither opens, `why` the first error.
async function openCamera() {
	let why = null;
	for (const wanted of [{ video: { width: { ideal: 640 } }, audio: true }, { audio: true }, { video: true }]) {
		try {
			return { stream: await navigator.mediaDevices.getUserMedia(wanted), why };
		} catch (error) {
			why = why || error;
		}
	}
	return { stream: null, why };
}

