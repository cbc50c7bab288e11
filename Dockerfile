# Build: with the profile and the lock file of the tests; S3 stores and OTLP traces besides.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --features s3,otlp && strip target/release/weightpress

FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --create-home --home-dir /data weightpress
COPY --from=build /src/target/release/weightpress /usr/local/bin/weightpress
# The authorities that https endpoints of a store or a collector are checked by.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY LICENSE LICENSE-APACHE LICENSE-MIT /usr/share/doc/weightpress/
# A number, so that an orchestrator can see that it is not root.
USER 10001
ENV WEIGHTPRESS_DATA_DIR=/data \
    WEIGHTPRESS_LISTEN=0.0.0.0:8080
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["weightpress", "healthcheck"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["weightpress"]
CMD ["serve"]
