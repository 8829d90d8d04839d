"""A browser without a screen: cookies, redirects and forms, as a person uses an IdP's pages."""

import http.client
import urllib.parse
from dataclasses import dataclass, field
from html.parser import HTMLParser

PATIENCE_SECONDS = 60
MAX_STEPS = 20
MAX_SHOWN = 300


@dataclass
class Page:
    """An answer of a server."""

    status: int
    headers: http.client.HTTPMessage
    body: str
    url: str

    @property
    def location(self):
        return urllib.parse.urljoin(self.url, self.headers.get("location", ""))

    @property
    def is_redirect(self):
        return 300 <= self.status < 400 and "location" in self.headers

    def __str__(self):
        kind = self.headers.get_content_type()
        return f"{self.status} {kind} at {self.url.split('?')[0]}: {text_of(self.body)[:MAX_SHOWN]}"


class Browser:
    """Cookies are kept by host name, without their attributes: a run is over before one expires."""

    def __init__(self):
        self.cookies = {}

    def request(self, method, url, body=None, headers=None):
        parts = urllib.parse.urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=PATIENCE_SECONDS)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        sent = {"Accept": "text/html", **(headers or {})}
        kept = self.cookies.setdefault(parts.hostname, {})
        if kept:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in kept.items())
        if body is not None:
            sent.setdefault("Content-Type", "application/x-www-form-urlencoded")
        try:
            connection.request(method, target, body=body, headers=sent)
            answer = connection.getresponse()
            text = answer.read().decode("utf-8", "replace")
        finally:
            connection.close()
        for cookie in answer.headers.get_all("set-cookie", []):
            name, _, value = cookie.split(";")[0].partition("=")
            is_removed = "max-age=0" in cookie.lower().replace(" ", "") or not value
            kept.pop(name.strip(), None)
            if not is_removed:
                kept[name.strip()] = value.strip()
        return Page(answer.status, answer.headers, text, url)

    def get(self, url):
        return self.request("GET", url)

    def submit(self, page, person):
        """Submits the page's form as the person fills it in."""
        form = form_of(page.body)
        if form is None:
            raise Stuck(f"no form on the page {page}")
        fields = form.filled(person)
        target = urllib.parse.urljoin(page.url, form.action or page.url)
        origin = "{0.scheme}://{0.netloc}".format(urllib.parse.urlsplit(page.url))
        body = urllib.parse.urlencode(fields)
        if form.method == "get":
            return self.get(target.split("?")[0] + "?" + body)
        return self.request("POST", target, body, {"Origin": origin, "Referer": page.url})

    def drive(self, url, origin, person):
        """Follows redirects and submits forms until the browser is sent to `origin`, and returns where."""
        page = self.get(url)
        for _ in range(MAX_STEPS):
            if page.is_redirect:
                if page.location.startswith(origin):
                    return page.location
                page = self.get(page.location)
            elif page.status == 200 and form_of(page.body):
                page = self.submit(page, person)
            else:
                raise Stuck(str(page))
        raise Stuck(f"more than {MAX_STEPS} pages, at last {page}")

    def wander(self, url, origin):
        """Follows redirects only, as a check does: the page where they end, or the redirect to `origin`."""
        page = self.get(url)
        for _ in range(MAX_STEPS):
            if not page.is_redirect or page.location.startswith(origin):
                break
            page = self.get(page.location)
        return page


class Stuck(Exception):
    """The IdP shows a page that doesn't lead back."""


@dataclass
class Form:
    """The first form of a page."""

    action: str
    method: str
    fields: list = field(default_factory=list)

    def filled(self, person):
        """The fields as the person sends them: every box ticked, by the button that agrees."""
        pairs, buttons = [], []
        for name, kind, value in self.fields:
            if kind == "submit":
                buttons.append((name, value))
            elif name in person:
                pairs.append((name, person[name]))
            elif name and kind not in ("button", "reset", "image", "file"):
                pairs.append((name, value))
        agreeing = min(buttons, key=lambda button: rank(" ".join(button)), default=("", ""))
        return [*pairs, agreeing] if agreeing[0] else pairs


AGREES = ("accept", "allow", "approve", "yes", "logout")
REFUSES = ("cancel", "deny", "reject", "abort")


def rank(button):
    """Orders the buttons of a form: the one that agrees, one that says neither, one that refuses."""
    button = button.lower()
    for place, word in enumerate(AGREES):
        if word in button:
            return place
    return len(AGREES) + any(word in button for word in REFUSES)


class _Forms(HTMLParser):
    def __init__(self):
        super().__init__()
        self.forms, self.open = [], None

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "form":
            self.open = Form(attrs.get("action") or "", (attrs.get("method") or "get").lower())
            self.forms.append(self.open)
        elif self.open and tag in ("input", "button"):
            kind = (attrs.get("type") or ("submit" if tag == "button" else "text")).lower()
            value = attrs.get("value") or ("on" if kind in ("checkbox", "radio") else "")
            self.open.fields.append((attrs.get("name") or "", kind, value))

    def handle_endtag(self, tag):
        if tag == "form":
            self.open = None


class _Text(HTMLParser):
    SILENT = ("script", "style", "head")

    def __init__(self):
        super().__init__()
        self.text, self.depth = [], 0

    def handle_starttag(self, tag, attrs):
        self.depth += tag in self.SILENT

    def handle_endtag(self, tag):
        self.depth -= tag in self.SILENT and self.depth > 0

    def handle_data(self, data):
        if not self.depth:
            self.text.append(data)


def form_of(body):
    parser = _Forms()
    parser.feed(body)
    return parser.forms[0] if parser.forms else None


def text_of(body):
    if "<" not in body:
        return " ".join(body.split())
    parser = _Text()
    parser.feed(body)
    return " ".join(" ".join(parser.text).split())
