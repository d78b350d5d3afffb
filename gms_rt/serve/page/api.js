// The service over HTTP. Every failure is a ServiceError with a title, a reason and a fix in words. The token is asked
// for when the service wants one and kept for this tab (sessionStorage); nothing else is stored.

const TOKEN = "gms-rt-token";
const TITLES = {
  bad_image: "This scan cannot be segmented",
  bad_request: "The service did not understand the request",
  busy: "The service is busy",
  closed: "The service is starting or ending",
  failed: "The service failed",
  forbidden: "The service does not answer pages of this address",
  late: "It took too long",
  not_acceptable: "There is no such file of this scan",
  slow: "The connection is too slow",
  too_large: "This is too large for the service",
  unauthorised: "The service asks for a token",
  unreachable: "The service cannot be reached",
  gone: "The file cannot be read any more",
  unsupported: "This is not a scan that can be read",
};

const FIXES = {
  bad_image: "Look whether the file opens elsewhere; get it again from where it came, or choose another.",
  failed: "Segment it again. If it fails again, tell whoever runs the service: its log says why.",
  late: "Segment it again, or send fewer images at a time.",
  slow: "Segment it again on a better connection.",
  too_large: "Send a part of it, or a smaller image.",
};

export class ServiceError extends Error {
  constructor({ reason, what = "", fix = "", status = 0, retryAfter = 0 }) {
    super(what);
    this.reason = reason;
    this.title = TITLES[reason] ?? "The service refused";
    this.what = what;
    this.fix = fix || (FIXES[reason] ?? "");
    this.status = status;
    this.retryAfter = retryAfter; // seconds
  }
}

export class Service {
  /** `askToken(wrong)` returns a promise of a token, or of null if nobody gives one. */
  constructor(askToken) {
    this._askToken = askToken;
    this._asking = null;
    this.declined = false; // nobody gave a token: do not ask for each scan again
  }

  /** {models, limits, version}; limits are absent if the service does not tell them. */
  async description() {
    const answer = await this._fetch("openapi.json", {});
    const value = await answer.json();
    const post = value.paths["/v1/segment"].post;
    const models = post.parameters.find((each) => each.name === "model").schema.enum;
    return { models, limits: post["x-limits"] ?? {}, version: value.info.version };
  }

  async isReady() {
    try {
      return (await fetch("v2/health/ready")).ok;
    } catch {
      return null; // cannot be reached
    }
  }

  /** The answer to these files as a Response: JSON with images, or the format that `accept` names. */
  async segment(files, { model, accept = "application/json", signal }) {
    const query = new URLSearchParams(accept === "application/json" ? { images: "true" } : {});
    if (model) query.set("model", model);
    return this._fetch(`v1/segment?${query}`, {
      method: "POST",
      headers: { Accept: accept },
      signal,
      body: () => formFrom(files),
      files,
    });
  }

  async _fetch(address, { body, files, headers = {}, ...rest }) {
    for (;;) {
      const token = sessionStorage.getItem(TOKEN);
      const sent = token ? { ...headers, Authorization: `Bearer ${token}` } : headers;
      let answer;
      try {
        answer = await fetch(address, { ...rest, headers: sent, body: body?.() });
      } catch (error) {
        if (error.name === "AbortError") throw error;
        throw await networkError(files);
      }
      if (answer.ok) return answer;
      const refusal = await errorFrom(answer);
      if (answer.status !== 401 || !(await this._newToken(token))) throw refusal;
    }
  }

  /** Whether there is another token than the one that was refused. However many requests were, people are asked once. */
  async _newToken(refused) {
    if (sessionStorage.getItem(TOKEN) !== refused) return true;
    if (this.declined) return false;
    this._asking ??= this._askToken(refused !== null).finally(() => (this._asking = null));
    const token = await this._asking;
    this.declined = token === null;
    if (this.declined) return false;
    sessionStorage.setItem(TOKEN, token);
    return true;
  }
}

function formFrom(files) {
  const form = new FormData();
  for (const { file, path, kind } of files) {
    // DICOM without its usual prefix is believed only where its type says so.
    const part = kind === "dicom" ? new Blob([file], { type: "application/dicom" }) : file;
    form.append("file", part, path);
  }
  return form;
}

async function networkError(files = []) {
  for (const { file, path } of files) {
    try {
      await file.slice(0, 1).arrayBuffer();
    } catch {
      return new ServiceError({
        reason: "gone",
        what: `${path.split("/").pop()} was changed, moved or closed since it was chosen.`,
        fix: "Remove it here and choose it again.",
      });
    }
  }
  return new ServiceError({
    reason: "unreachable",
    what: "There was no answer.",
    fix: "See that gms-rt serve is running and that this machine reaches it, then segment again.",
  });
}

async function errorFrom(answer) {
  let told = {};
  try {
    told = (await answer.json()).error ?? {};
  } catch {
    told = {}; // an answer of something between us and the service
  }
  return new ServiceError({
    reason: told.reason ?? "refused",
    what: told.what ? sentence(told.what, told.where) : `It answered with HTTP ${answer.status}.`,
    fix: told.fix ? sentence(told.fix) : "",
    status: answer.status,
    retryAfter: Number(answer.headers.get("Retry-After")) || 0,
  });
}

function sentence(text, where) {
  const subject = where === "body" ? "The scan " : where && !/^(Authorization|Host|Origin)$/.test(where) ? `${where} ` : "";
  const whole = subject + text;
  return whole.charAt(0).toUpperCase() + whole.slice(1) + (/[.!?]$/.test(whole) ? "" : ".");
}
