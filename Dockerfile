# syntax=docker/dockerfile:1
# docker build -t peerpanda-sso .

# Both images come with CA certificates, which the service needs to call IdPs.
FROM rust:1.95-bookworm AS build
WORKDIR /src
# Build the dependencies alone first, so that a change of the service's own code doesn't build them again.
COPY Cargo.toml Cargo.lock build.rs ./
COPY proto ./proto
RUN mkdir -p src migrations && echo 'fn main() {}' > src/main.rs && touch src/lib.rs \
 && cargo build --release --locked --bin peerpanda-sso && rm -rf src
COPY src ./src
COPY migrations ./migrations
# The real sources must be newer than what was built from the empty ones.
RUN find src -exec touch {} + && cargo build --release --locked --bin peerpanda-sso \
 && install -d -o 65532 -g 65532 /data

# No shell and no package manager: glibc, libgcc and the CA bundle only.
FROM gcr.io/distroless/cc-debian12:nonroot
# scripts/release sets both in the copy that it publishes.
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="peerpanda-sso" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /src/target/release/peerpanda-sso /usr/local/bin/peerpanda-sso
# Only SQLite writes files, here. Everything else runs on a read-only root file system.
COPY --from=build --chown=65532:65532 /data /var/lib/peerpanda-sso
WORKDIR /var/lib/peerpanda-sso
USER 65532:65532
EXPOSE 50051 50052 9090
ENTRYPOINT ["/usr/local/bin/peerpanda-sso"]
CMD ["serve"]
