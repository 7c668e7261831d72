() => {
	// The clip's playback over the page: a line over the timeline, the word being said. Runs once, when the page has loaded.
	// Another clip was given: the answer before goes at once, whenever the server's news arrive.
	window.addEventListener("mlf-given", () => {
		for (const old of document.querySelectorAll("#answer section, #transcript section, #reasons section, #timeline-said p"))
			old.style.visibility = "hidden";
	});
	const line = document.createElement("div");
	line.className = "mlf-cursor";
	const follow = () => {
		const plot = document.querySelector("#timeline .js-plotly-plot");
		const clip = document.querySelector("#clip-panel video[src], #clip-panel audio[src]");
		const axis = plot && plot._fullLayout && plot._fullLayout.xaxis;
		const now = clip ? clip.currentTime : 0;
		const x = axis && clip ? axis.l2p(now) : -1;
		if (x > 0 && x <= axis._length) {
			if (line.parentElement !== plot) plot.append(line);
			line.style.left = axis._offset + x + "px";
			line.style.top = plot._fullLayout.margin.t + "px";
			line.style.height = plot._fullLayout.height - plot._fullLayout.margin.t - plot._fullLayout.margin.b + "px";
			line.hidden = false;
		} else line.hidden = true;
		for (const word of document.querySelectorAll("#transcript [data-start]"))
			word.classList.toggle("now", Boolean(clip) && !clip.paused && now >= Number(word.dataset.start) && now < Number(word.dataset.end));
		for (const [where, told] of [["#timeline", "#timeline-said p"], ["#live-curve", "#live-answer section"]]) {
			const drawn = document.querySelector(`${where} .js-plotly-plot`);
			const text = document.querySelector(told);
			if (!drawn) continue;
			drawn.setAttribute("role", "img");
			drawn.setAttribute("aria-label", text ? text.textContent : "Sentiment over time");
		}
		requestAnimationFrame(follow);
	};
	follow();
}
