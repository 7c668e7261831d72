() => {
	// A line over the timeline that follows the clip as it plays. Runs once, when the page has loaded.
	const line = document.createElement("div");
	line.className = "mlf-cursor";
	const follow = () => {
		const plot = document.querySelector("#timeline .js-plotly-plot");
		const clip = document.querySelector("#video video[src], #sound audio[src]");
		const axis = plot && plot._fullLayout && plot._fullLayout.xaxis;
		const x = axis && clip ? axis.l2p(clip.currentTime) : -1;
		if (x > 0 && x <= axis._length) {
			if (line.parentElement !== plot) plot.append(line);
			line.style.left = axis._offset + x + "px";
			line.style.top = plot._fullLayout.margin.t + "px";
			line.style.height = plot._fullLayout.height - plot._fullLayout.margin.t - plot._fullLayout.margin.b + "px";
			line.hidden = false;
		} else line.hidden = true;
		requestAnimationFrame(follow);
	};
	follow();
}
