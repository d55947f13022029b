// Generated from control-plane/openapi.json by `npm run gen`. Do not edit.

export interface paths {
    "/.well-known/jwks.json": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The keys by which the hub's signatures are checked. */
        get: operations["jwks"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/health": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Is the process alive? */
        get: operations["health"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/ready": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Can it work? */
        get: operations["ready"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
}
export type webhooks = Record<string, never>;
export interface components {
    schemas: {
        /** @description The body of every error. */
        ErrorBody: {
            /** @description For programs. */
            code?: string | null;
            /** @description For people, or one of the old literals that existing clients compare with. */
            error: string;
            /** @description For people. */
            message?: string | null;
        };
        /** @description Upstream's body. A dead database does not turn it red: that is what `/ready` is for. */
        Health: {
            maintenance: components["schemas"]["Maintenance"];
            phlixShared?: string | null;
            service: string;
            /** @description `ok`, or `unhealthy` with 503 when the timed jobs stopped running. */
            status: string;
            /**
             * Format: int64
             * @description Unix seconds.
             */
            timestamp: number;
            version: string;
        };
        /** @description A public Ed25519 key (RFC 8037). */
        Key: {
            alg?: string | null;
            crv: string;
            kid?: string | null;
            kty: string;
            use?: string | null;
            x: string;
        };
        /** @description Those that sign first, then those whose tokens are still about. */
        Keys: {
            keys: components["schemas"]["Key"][];
        };
        /** @description How the timed jobs are. */
        Maintenance: {
            /** Format: int64 */
            age_seconds?: number | null;
            /** Format: int32 */
            consecutive_failures: number;
            /** Format: int32 */
            incarnations: number;
            last_error?: string | null;
            /** Format: int32 */
            pid: number;
            reason?: string | null;
            /** Format: int64 */
            stale_after_seconds: number;
            status: string;
            task: string;
        };
        /** @description What is needed to work, each `ok` or why not. */
        Ready: {
            database: string;
            keys: string;
            status: string;
        };
    };
    responses: never;
    parameters: never;
    requestBodies: never;
    headers: never;
    pathItems: never;
}
export type $defs = Record<string, never>;
export interface operations {
    jwks: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Keys"];
                };
            };
            429: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    health: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Health"];
                };
            };
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Health"];
                };
            };
        };
    };
    ready: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Ready"];
                };
            };
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Ready"];
                };
            };
        };
    };
}
