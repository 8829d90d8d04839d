"""The rows of the matrix: right and wrong set-ups, what the service must say of each, and what it says."""

from dataclasses import dataclass

from browser import Browser, Stuck
from idp import PERSON
from service import Failed, Refused

WRONG_SECRET = "a-wrong-secret-of-the-matrix"
# Form encoding changes these characters, and HTTP Basic asks for it (RFC 6749 2.3.1).
ODD_SECRET = "s3cret with: odd +%/= characters"
DECISIVE = ("client.credentials", "client.redirect_uri", "logout.endpoint")
# When an IdP leaves a check undecided (UNDECIDED of its setup): for every set-up, or only for one that is wrong.
ALWAYS, IF_WRONG = "always", "if wrong"


@dataclass
class Row:
    """One set-up and its outcome."""

    title: str
    subject: str
    outcome: str
    actor: str
    text: str
    # What is wrong with it; empty if the row is as it must be.
    fault: str = ""


class Matrix:
    def __init__(self, setup, service, public, issuer, clients):
        self.setup, self.service, self.public, self.issuer = setup, service, public, issuer
        self.clients = {client.id: client for client in clients}
        self.shown = ""
        self.has_logout = getattr(setup, "HAS_LOGOUT", True)
        self.undecided = getattr(setup, "UNDECIDED", {})
        self.person = {"username": PERSON["name"], "login": PERSON["name"], "password": PERSON["password"],
                       **getattr(setup, "FIELDS", {})}
        self.identity = getattr(setup, "IDENTITY", (PERSON["email"], PERSON["given"], PERSON["family"]))

    def rows(self):
        for slug in ("by-basic", "by-post"):
            yield from self.right(slug)
        yield from self.odd_secret()
        yield self.wrong("wrong-secret", "client.credentials", "SUPPORT", [], secret=WRONG_SECRET)
        yield self.refused_login("wrong-secret")
        if getattr(self.setup, "ENFORCES_METHOD", True):
            yield self.wrong("wrong-method", "client.credentials", "SUPPORT", ["client_secret_basic"], method="client_secret_post")
            yield self.refused_login("wrong-method")
        else:
            self.create("wrong-method", method="client_secret_post")
            yield self.checked("wrong method: the IdP accepts both", "wrong-method", {"client.credentials": ["PASS"]})
        yield self.wrong("wrong-client-id", "client.credentials", "SUPPORT", ["client id"], client_id="nobody")
        uri = f"{self.public}/app/accounts/oidc/wrong-redirect-uri/login/callback/"
        yield self.wrong("wrong-redirect-uri", "client.redirect_uri", "CUSTOMER_IDP_ADMIN", [uri])
        other = ["--issuer", self.issuer + "/other"]
        yield self.wrong("wrong-issuer", "metadata.issuer", "SUPPORT", [f'"{self.issuer}"'], more=other)
        if self.has_logout:
            uri = f"{self.public}/app/accounts/oidc/wrong-logout-uri/login/"
            yield self.wrong("wrong-logout-uri", "logout.endpoint", "CUSTOMER_IDP_ADMIN", [uri])

    def create(self, slug, secret=None, method=None, client_id=None, more=()):
        client = self.clients.get(slug, self.clients["by-basic"])
        discovery = f"{self.issuer}/.well-known/openid-configuration"
        more = [*getattr(self.setup, "OPTIONS", []), *more]
        self.service.create(slug, discovery, client_id or client.id, secret or client.secret, method or client.method, *more)

    def right(self, slug):
        self.create(slug)
        title = f"right set-up, {slug}"
        yield self.checked(title, slug, self.right_outcomes())
        yield self.logged_in(f"{title}: test login", slug, Browser())[0]
        yield self.checked(f"{title}, after the test login", slug, self.right_outcomes())
        try:
            self.service.must("activate", slug)
            yield Row(f"{title}: activation", "activate", "PASS", "", "ACTIVE without --force")
        except Failed as failed:
            yield Row(f"{title}: activation", "activate", "REFUSED", "", str(failed), "must be possible without --force")
        browser = Browser()
        row, completed = self.logged_in(f"{title}: login", slug, browser)
        yield row
        if completed:
            yield self.logout(f"{title}: logout", slug, browser, completed.id_token)

    def right_outcomes(self):
        outcomes = {}
        for check in DECISIVE:
            outcomes[check] = ["INCONCLUSIVE"] if self.undecided.get(check) == ALWAYS else ["PASS"]
        if not self.has_logout:
            outcomes["logout.endpoint"] = ["SKIPPED"]
        return outcomes

    def checked(self, title, slug, expected):
        """A right set-up: no FAIL, no WARN, and the decisive checks as expected."""
        results = self.service.check(slug)
        others = [result for result in results.values() if outcome(result) != "PASS"]
        faults = [f"{result['id']} must not be {outcome(result)}" for result in others if outcome(result) in ("FAIL", "WARN")]
        for check, allowed in expected.items():
            actual = outcome(results[check]) if check in results else "missing"
            if actual not in allowed:
                faults.append(f"{check} must be {' or '.join(allowed)}, not {actual}")
        counts = {name: sum(outcome(result) == name for result in results.values()) for name in ("PASS", "SKIPPED")}
        texts = [f"{counts['PASS']} passed"] + [f"{counts['SKIPPED']} skipped"] * bool(counts["SKIPPED"])
        told = [result for result in others if outcome(result) != "SKIPPED" or result["id"] in DECISIVE]
        texts += [f"{outcome(result)} {result['id']}: {said(result)}" for result in told]
        # Like the summary of a check: only a decisive one makes it INCONCLUSIVE.
        weighty = {outcome(result) for result in others if outcome(result) != "INCONCLUSIVE" or result["id"] in DECISIVE}
        worst = next((name for name in ("FAIL", "WARN", "INCONCLUSIVE") if name in weighty), "PASS")
        text = "; ".join(texts)
        shown, self.shown = ("as before" if text == self.shown else text), text
        return Row(title, "check", worst, "", shown, "; ".join(faults))

    def wrong(self, slug, check, actor, words, secret=None, method=None, client_id=None, more=()):
        """One fault: one finding, with the right owner and these words, and nothing else that fails or warns."""
        self.create(slug, secret, method, client_id, more)
        results = self.service.check(slug)
        result = results.get(check, {})
        text = said(result)
        faults = []
        if self.undecided.get(check) in (ALWAYS, IF_WRONG):
            if outcome(result) != "INCONCLUSIVE":
                faults.append(f"{check} must be INCONCLUSIVE")
        else:
            if (outcome(result), owner(result)) != ("FAIL", actor):
                faults.append(f"{check} must be FAIL for {actor}")
            faults += [f"must say {word}" for word in words if word not in text]
        for other in results.values():
            if other["id"] != check and outcome(other) in ("FAIL", "WARN"):
                faults.append(f"{other['id']} must not be {outcome(other)}: {other['found']}")
        return Row(words_of(slug), check, outcome(result), owner(result), text, "; ".join(faults))

    def odd_secret(self):
        title = "secret with special characters, by basic"
        if getattr(self.setup, "DECODES_BASIC", True):
            self.create("odd")
            yield self.checked(title, "odd", {"client.credentials": ["PASS"]})
            yield self.logged_in(f"{title}: login", "odd", Browser())[0]
        else:
            row = self.wrong("odd", "client.credentials", "SUPPORT", ["character"])
            yield Row(title, row.subject, row.outcome, row.actor, row.text, row.fault)

    def logged_in(self, title, slug, browser):
        try:
            url, binding = self.service.begin(slug)
            callback = browser.drive(url, self.public, self.person)
            completed = self.service.complete(slug, callback, binding)
        except (Stuck, Refused) as failed:
            return Row(title, "login", "REFUSED", "", str(failed), "must succeed"), None
        identity = completed.identity
        actual = (identity.email, identity.given_name, identity.family_name)
        fault = "" if actual == self.identity else f"the identity must be {self.identity}"
        return Row(title, "login", "PASS", "", f"{actual[1]} {actual[2]}, {actual[0]}", fault), completed

    def refused_login(self, slug):
        """The login fails for the reason that the check found, and its attempt says the same."""
        title = f"{words_of(slug)}: login"
        try:
            url, binding = self.service.begin(slug)
            callback = Browser().drive(url, self.public, self.person)
            self.service.complete(slug, callback, binding)
        except Refused as refused:
            stated = (refused.reason, refused.metadata.get("cause"), refused.metadata.get("owner"))
            attempt = self.service.attempts(slug)[0]
            faults = []
            if (stated[0], stated[2]) != ("CLIENT_REJECTED", "support"):
                faults.append("must be CLIENT_REJECTED for support")
            if (attempt["reason"], attempt["cause"], attempt["owner"]) != stated:
                faults.append(f"the attempt must have the refusal's reason, cause and owner: {attempt}")
            text = f"{stated[0]} ({stated[1]}): {refused.text} → {attempt.get('remedy')}"
            return Row(title, "login", "REFUSED", stated[2].upper(), text, "; ".join(faults))
        except Stuck as stuck:
            return Row(title, "login", "STUCK", "", str(stuck), "must be refused by the service")
        return Row(title, "login", "PASS", "", "", "must be refused")

    def logout(self, title, slug, browser, id_token):
        answer = self.service.logout_url(slug, id_token, "left")
        if answer.ends_idp_session != self.has_logout:
            return Row(title, "logout", "FAIL", "", "", f"ends_idp_session must be {self.has_logout}")
        home = f"{self.public}/app/accounts/oidc/{slug}/login/"
        if not self.has_logout:
            fault = "" if answer.redirect_url.startswith(home) else "must lead to the post-logout redirect URI"
            return Row(title, "logout", "PASS", "", "the IdP has no logout: straight to the post-logout redirect URI", fault)
        try:
            back = browser.drive(answer.redirect_url, self.public, self.person)
        except Stuck as stuck:
            return Row(title, "logout", "STUCK", "", str(stuck), "must come back")
        fault = "" if back == f"{home}?state=left" else f"must come back to {home}?state=left"
        again = browser.wander(self.service.begin(slug)[0], self.public)
        if again.is_redirect:
            fault = "the IdP's session must have ended"
        return Row(title, "logout", "PASS", "", "back at the post-logout redirect URI, and the IdP asks for the password again", fault)


def words_of(slug):
    return slug.replace("-", " ").replace("uri", "URI")


def said(result):
    return " → ".join(text for text in (result.get("found"), result.get("remedy")) if text)


def outcome(result):
    return result.get("outcome", "").removeprefix("CHECK_OUTCOME_")


def owner(result):
    name = result.get("actor", "").removeprefix("PARTY_")
    return "" if name == "UNSPECIFIED" else name
