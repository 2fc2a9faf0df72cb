'use strict';
// Fetches the page again every five seconds and shows what is new in it. Without this script the browser loads it anew
// every ten.
(() => {
  const every = 5000;
  const stale = document.getElementById('stale');
  async function again() {
    try {
      const answer = await fetch('./', { cache: 'no-store', signal: AbortSignal.timeout(4 * every) });
      if (!answer.ok) throw new Error(answer.status);
      const next = new DOMParser().parseFromString(await answer.text(), 'text/html');
      document.title = next.title;
      document.querySelector('main').replaceWith(document.importNode(next.querySelector('main'), true));
      stale.hidden = true;
    } catch {
      stale.querySelector('time').textContent = document.querySelector('footer time').textContent;
      stale.hidden = false;
    }
    setTimeout(again, document.hidden ? 4 * every : every);
  }
  setTimeout(again, every);
})();
