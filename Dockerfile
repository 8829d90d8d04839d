# syntax=docker/dockerfile:1
# docker build -t peerpanda-sso .

# The CA certificates come with both images: the service needs them to call IdPs.
FROM rust:1.95-bookworm AS build
WORKDIR /src
# The dependencies alone, so that a change of the service's own code doesn't build them again.
COPY Cargo.toml Cargo.lock build.rs ./
COPY proto ./proto
RUN mkdir -p src migrations && echo 'fn main() {}' > src/main.rs && touch src/lib.rs \
 && cargo build --release --locked --bin peerpanda-sso && rm -rf src
COPY src ./src
COPY migrations ./migrations
# Newer than what was built of the empty sources.
RUN find src -exec touch {} + && cargo build --release --locked --bin peerpanda-sso \
 && install -d -o 65532 -g 65532 /data

# No shell, no package manager; glibc, libgcc and the CA bundle.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/peerpanda-sso /usr/local/bin/peerpanda-sso
# For SQLite, the only thing that is ever written: all else runs on a read-only root.
COPY --from=build --chown=65532:65532 /data /var/lib/peerpanda-sso
WORKDIR /var/lib/peerpanda-sso
USER 65532:65532
EXPOSE 50051 50052 9090
ENTRYPOINT ["/usr/local/bin/peerpanda-sso"]
CMD ["serve"]
