"""A Django project with django-oauth-toolkit. Arguments: a port, and the person and the clients as JSON."""

import json
import pathlib
import sys

import django
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from django.conf import settings
from django.core.management import call_command
from django.urls import include, path

LOGIN = '<form method="post">{% csrf_token %}{{ form }}<input type="hidden" name="next" value="{{ next }}"><button>Log in</button></form>'
port, made = sys.argv[1], json.loads(sys.argv[2])
key = rsa.generate_private_key(65537, 2048).private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
settings.configure(
    SECRET_KEY="of one run", ALLOWED_HOSTS=["localhost"], ROOT_URLCONF="__main__", LOGIN_URL="/login/", DEBUG=False,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(pathlib.Path.cwd() / "server.db")}},
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "oauth2_provider"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware", "django.middleware.csrf.CsrfViewMiddleware",
                "django.contrib.auth.middleware.AuthenticationMiddleware"],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": False, "OPTIONS": {
        "context_processors": ["django.template.context_processors.request", "django.contrib.auth.context_processors.auth"],
        "loaders": [("django.template.loaders.locmem.Loader", {"registration/login.html": LOGIN}),
                    "django.template.loaders.app_directories.Loader"]}}],
    LOGGING={"version": 1, "disable_existing_loggers": False, "handlers": {"all": {"class": "logging.StreamHandler"}},
             "loggers": {"django": {"handlers": ["all"], "level": "WARNING"}}},
    OAUTH2_PROVIDER={
        "OIDC_ENABLED": True, "OIDC_RSA_PRIVATE_KEY": key.decode(), "OIDC_RP_INITIATED_LOGOUT_ENABLED": True,
        "SCOPES": {"openid": "who", "email": "e-mail", "profile": "name"}, "OAUTH2_VALIDATOR_CLASS": "__main__.Validator",
    },
)
django.setup()

from django.contrib.auth.models import User  # noqa: E402
from django.contrib.auth.views import LoginView  # noqa: E402
from oauth2_provider.models import get_application_model  # noqa: E402
from oauth2_provider.oauth2_validators import OAuth2Validator  # noqa: E402


class Validator(OAuth2Validator):
    oidc_claim_scope = OAuth2Validator.oidc_claim_scope | {"email": "email", "given_name": "profile", "family_name": "profile"}

    def get_additional_claims(self):
        return {"email": lambda request: request.user.email, "given_name": lambda request: request.user.first_name,
                "family_name": lambda request: request.user.last_name}


urlpatterns = [path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")), path("login/", LoginView.as_view())]

call_command("migrate", verbosity=0)
person = made["person"]
User.objects.create_user(person["name"], person["email"], person["password"], first_name=person["given"], last_name=person["family"])
for client in made["clients"]:
    get_application_model().objects.create(
        name=client["id"], client_id=client["id"], client_secret=client["secret"], client_type="confidential",
        authorization_grant_type="authorization-code", algorithm="RS256", redirect_uris=" ".join(client["redirect_uris"]),
        post_logout_redirect_uris=" ".join(client["post_logout_uris"]))
call_command("runserver", f"127.0.0.1:{port}", "--noreload")
