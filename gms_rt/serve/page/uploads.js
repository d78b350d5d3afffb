// Cases on their way to the service: a bounded number at a time, in order. Where the service is busy or not ready, all
// wait as long as it says and go on by themselves.

const AT_A_TIME = 3;

export class Uploads {
  /** `send(each, signal)` does one case; `changed(each, state, seconds, error)` is told of each step. */
  constructor(send, changed) {
    this._send = send;
    this._changed = changed;
    this._waiting = [];
    this._flying = new Map();
    this._notBefore = 0;
    this._timer = null;
  }

  get unfinished() {
    return this._waiting.length + this._flying.size;
  }

  add(each, first = false) {
    this.remove(each);
    if (first) this._waiting.unshift(each);
    else this._waiting.push(each);
    this._changed(each, "waiting");
    this._go();
  }

  remove(each) {
    this._waiting = this._waiting.filter((other) => other !== each);
    this._flying.get(each)?.abort();
    this._flying.delete(each);
  }

  _go() {
    clearTimeout(this._timer);
    const pause = this._notBefore - performance.now();
    if (pause > 0) {
      for (const each of this._waiting) this._changed(each, "paused", Math.ceil(pause / 1000));
      this._timer = setTimeout(() => this._go(), Math.min(pause, 1000));
      return;
    }
    while (this._waiting.length && this._flying.size < AT_A_TIME) this._fly(this._waiting.shift());
    for (const each of this._waiting) if (each.state === "paused") this._changed(each, "waiting");
  }

  async _fly(each) {
    const stop = new AbortController();
    this._flying.set(each, stop);
    this._changed(each, "working");
    let again = false;
    let failure = null;
    try {
      await this._send(each, stop.signal);
    } catch (error) {
      if (stop.signal.aborted) return;
      again = error.status === 429 || error.status === 503;
      if (again) this._notBefore = performance.now() + 1000 * Math.max(1, error.retryAfter);
      else failure = error;
    }
    if (this._flying.get(each) !== stop) return; // removed, or begun anew
    this._flying.delete(each);
    if (again) this._waiting.unshift(each);
    this._go();
    if (!again) this._changed(each, failure ? "failed" : "done", 0, failure);
  }
}
